//! `rekindle render`: what a node would get, and nothing that is secret.

use rekindle::boot::Grant;
use rekindle::trust::store;

use crate::sandbox::Sandbox;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn no_secret_is_ever_printed() {
    let sandbox = Sandbox::new();
    sandbox.change("# The nodes.", "[scheduler]\nkind = \"torque\"\n# The nodes.");
    sandbox.also("[DIR]/tree\"", "[DIR]/tree\"\nrepo = \"[DIR]/repo\"");
    std::fs::create_dir_all(sandbox.path("repo/repodata")).expect("folder");
    sandbox.write("repo/repodata/repomd.xml", "<repomd/>\n");
    sandbox.run("node reinstall worker1");
    let mut printed = String::new();
    for what in ["kickstart", "ipxe", "all"] {
        let told = sandbox.run(&format!("render {what} worker1"));
        assert!(told.ends_with("exit 0\n"), "{told}");
        printed += &told;
    }
    assert!(printed.contains("inst.ks=http://192.168.10.1/node/TOKEN-MASKED/ks "), "{printed}");
    let secrets = store::load_or_create(&sandbox.path("state")).expect("secrets");
    let grant = Grant { mac: "52:54:00:aa:bb:01".parse().expect("mac"), arm: 1 };
    let token_key = std::fs::read(sandbox.path("state/secrets/token.key")).expect("key");
    let mut secret = vec![
        secrets.token(grant).reveal().to_owned(),
        hex(&token_key),
        hex(&secrets.munge_key()[..16]),
        "PRIVATE KEY".to_owned(),
    ];
    for name in ["host_ca", "root_ed25519"] {
        let key =
            std::fs::read_to_string(sandbox.path(&format!("state/secrets/{name}"))).expect("key");
        // The first line of an OpenSSH private key's body is a header that all keys share.
        secret.extend(key.lines().skip(3).filter(|line| !line.starts_with('-')).map(str::to_owned));
    }
    assert!(secret.len() > 6, "the private keys were looked at");
    for secret in secret {
        assert!(!printed.contains(&secret), "{secret}");
    }
    let public = &secrets.public().host_ca;
    assert!(printed.contains(public.as_str()), "the public half is there");
}

#[test]
fn each_text_can_be_asked_for() {
    let sandbox = Sandbox::new();
    let kickstart = sandbox.run("render kickstart worker1");
    assert!(kickstart.starts_with("#version=RHEL9\n# rekindle: worker1, 52:54:00:aa:bb:01\n"));
    let script = sandbox.run("render ipxe worker1");
    assert!(
        script.starts_with("#!ipxe\n# rekindle: installs el9 on worker1 (52:54:00:aa:bb:01)\n")
    );
    let all = sandbox.run("render all worker1");
    let titles: Vec<_> = all.lines().filter(|line| line.starts_with("===== ")).collect();
    assert_eq!(
        titles,
        [
            "===== worker1: iPXE script that looks at the hardware =====",
            "===== worker1: iPXE script that installs =====",
            "===== worker1: iPXE script that boots the disk =====",
            "===== worker1: kickstart =====",
            "===== worker1: /etc/hosts =====",
            "===== worker1: /etc/yum.repos.d/rekindle.repo =====",
            "===== worker1: /root/.ssh/authorized_keys =====",
            "===== worker1: /etc/sysconfig/nftables.conf =====",
            "===== worker1: /etc/chrony.conf =====",
            "===== worker1: /etc/ssh/sshd_config.d/10-rekindle.conf =====",
            "===== worker1: /etc/ssh/ssh_config.d/10-rekindle.conf =====",
            "===== worker1: /etc/ssh/ssh_known_hosts =====",
            "===== worker1: /etc/ssh/shosts.equiv =====",
            "===== worker1: /etc/openmpi-x86_64/openmpi-mca-params.conf =====",
            "===== worker1: /etc/profile.d/rekindle-mpi.sh =====",
            "===== worker1: /etc/rekindle/hostfile =====",
            "===== worker1: /etc/security/limits.d/90-rekindle.conf =====",
            "===== worker1: /etc/rsyslog.d/rekindle.conf =====",
        ]
    );
    for text in [kickstart, script] {
        assert!(all.contains(text.trim_end_matches("exit 0\n")));
    }
}

#[test]
fn what_cannot_be_rendered_is_said_so() {
    let sandbox = Sandbox::new();
    sandbox.check(
        "render all nobody",
        "! rekindle: there is no node `nobody`; `rekindle node list` names them\nexit 1\n",
    );
    sandbox.remove("tree/RPM-GPG-KEY-AlmaLinux-9");
    sandbox.check("render all worker1", "! rekindle: os `el9`: no package-signing key in [DIR]/tree; name the vendor's key file in `gpg_keys`\nexit 1\n");
    sandbox.write("tree/RPM-GPG-KEY-x", "x");
    sandbox.write("tree/.treeinfo", &crate::sandbox::TREEINFO.replace("9.8", "8.10"));
    sandbox.change("# The nodes.", "[scheduler]\nkind = \"torque\"\n# The nodes.");
    sandbox.check("render kickstart worker1", "! rekindle: node `worker1`: there are no packages of torque for el8; set scheduler.kind to \"openpbs\" or \"slurm\"\nexit 1\n");
}
