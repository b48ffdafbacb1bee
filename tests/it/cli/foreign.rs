//! Installers of other systems: checked with the rest of cluster.toml, rendered for a node.

use crate::sandbox::Sandbox;

const TABLE: &str = "[installer.debian12]\nfolder = \"[DIR]/debian\"\nkernel = \"linux\"\ninitrd = \"initrd.gz\"\n\
                     args = \"auto=true url={answers}\"\nanswers = \"[DIR]/debian.preseed\"\n\n[defaults]";

fn sandbox() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.also("[defaults]", TABLE);
    sandbox.also("\nip = \"192.168.10.11\"", "\nip = \"192.168.10.11\"\nos = \"debian12\"");
    std::fs::create_dir_all(sandbox.path("debian")).expect("folder");
    sandbox.write("debian/linux", "kernel");
    sandbox.write("debian/initrd.gz", "initrd");
    sandbox.write("debian.preseed", "d-i netcfg/get_hostname string {{name}}\n# {{report}}\n");
    sandbox
}

#[test]
fn a_node_gets_its_owners_answers_filled_in() {
    let sandbox = sandbox();
    sandbox.check("check", "[DIR]/cluster.toml is sound: 2 nodes\nexit 0\n");
    sandbox.check(
        "render kickstart worker2",
        "d-i netcfg/get_hostname string worker2\n# http://192.168.10.1/node/TOKEN-MASKED/event\nexit 0\n",
    );
    let script = sandbox.run("render ipxe worker2");
    for line in [
        "kernel --name vmlinuz http://192.168.10.1/tree/debian12/linux initrd=initrd.img auto=true \
         url=http://192.168.10.1/node/TOKEN-MASKED/ks || goto retry\n",
        "initrd --name initrd.img http://192.168.10.1/tree/debian12/initrd.gz || goto retry\n",
    ] {
        assert!(script.contains(line), "{script}");
    }
    assert!(sandbox.run("render all worker2").contains("===== worker2: answers =====\n"));
    assert!(
        sandbox.run("render kickstart worker1").starts_with("#version=RHEL9\n"),
        "the other one"
    );
}

#[test]
fn what_is_wrong_with_an_installer_is_said() {
    let wrong = |from: &str, to: &str, expected: &str| {
        let sandbox = sandbox();
        sandbox.also(from, to);
        let told = sandbox.run("check");
        assert!(
            told.contains(expected) && told.ends_with("exit 1\n"),
            "{told}\n--- expected\n{expected}"
        );
    };
    wrong(
        "kernel = \"linux\"",
        "kernel = \"../linux\"",
        "`../linux` is no file below `folder`; write it like linux\n",
    );
    wrong(
        "kernel = \"linux\"",
        "kernel = \"vmlinuz\"",
        "installer `debian12`: [DIR]/debian/vmlinuz is missing\n",
    );
    wrong(
        "kernel = \"linux\"\n",
        "",
        "[installer.debian12] lacks `kernel`; add kernel = \"linux\"\n",
    );
    wrong(
        " url={answers}",
        "",
        "`args` does not say where the answers are; write {answers} where their URL belongs\n",
    );
    wrong(
        "auto=true",
        "a=$(reboot)",
        "`args` holds quotes or other special characters; kernel arguments have none\n",
    );
    wrong(
        "[installer.debian12]",
        "[installer.el9]",
        "[os.el9] has that name already; rename one\n",
    );
    wrong(
        "os = \"debian12\"",
        "os = \"debian13\"",
        "there is no [os.debian13]; add it or use one of: el9, debian12\n",
    );
    let sandbox = sandbox();
    sandbox.write("debian.preseed", "one\n{{nmae}}\n");
    assert!(sandbox.run("check").contains(
        "[DIR]/debian.preseed: line 2: `{{nmae}}` is no word of rekindle; known are name, "
    ));
    sandbox.remove("debian.preseed");
    assert!(
        sandbox.run("check").contains("installer `debian12`: cannot read [DIR]/debian.preseed: ")
    );
}

/// The example that is shipped.
#[test]
fn debians_answers_are_sound() {
    let sandbox = sandbox();
    let text = std::fs::read_to_string("docs/debian.preseed").expect("example");
    sandbox.write("debian.preseed", &text);
    let told = sandbox.run("render kickstart worker2");
    assert!(told.contains("  address 192.168.10.11/24\\n  gateway 192.168.10.1\\n"), "{told}");
    assert!(!told.contains("{{"), "{told}");
}
