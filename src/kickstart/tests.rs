use super::*;
use crate::cluster::{UnfitPolicy, sample};
use crate::media::tests::tree;

fn keys() -> PublicKeys {
    let line = |name| {
        format!(
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIjoQ/ehgmxQcNeHYr1GvvPmZg+bE8iPbVfAtPqNFHvz {name}"
        )
    };
    PublicKeys { host_ca: line("ca"), master_root: line("root@master") }
}

/// A kickstart of the sample cluster after a change to it.
fn render_of(
    release: Release,
    scheduler: Scheduler,
    change: impl FnOnce(&mut Node),
    snippets: &[(&str, &str)],
    known_disk: Option<&str>,
) -> Result<String, RenderError> {
    let mut parts = sample::parts();
    parts.scheduler = scheduler;
    let cluster = Cluster::assemble(parts);
    let mut node = sample::node(1);
    change(&mut node);
    let tree = Tree { release, cpu: release.cpu_floor(), ..tree() };
    let snippets = Snippets::parse(snippets.iter().copied(), &cluster).expect("snippets");
    let (token, keys) = (Token::masked(), keys());
    render(&Order {
        cluster: &cluster,
        node: &node,
        os: &node.os,
        tree: &tree,
        token: &token,
        keys: &keys,
        snippets: &snippets,
        known_disk,
    })
}

fn rendered(change: impl FnOnce(&mut Node)) -> Result<String, RenderError> {
    render_of(Release::El9, Scheduler::Torque, change, &[], None)
}

fn of(release: Release) -> String {
    render_of(release, Scheduler::None, |_| {}, &[], None).expect("kickstart")
}

#[test]
fn a_node_gets_its_own_address_bound_to_its_card() {
    let text = rendered(|_| {}).expect("kickstart");
    assert!(text.contains(
        "network --device=52:54:00:aa:bb:01 --bindto=mac --bootproto=static --ip=192.168.10.10 \
         --netmask=255.255.255.0 --gateway=192.168.10.1 --nameserver=192.168.10.1 \
         --hostname=worker1.cluster.lan --noipv6 --onboot=yes --activate\n"
    ));
}

#[test]
fn nothing_secret_but_the_token_is_in_it() {
    let text = rendered(|_| {}).expect("kickstart");
    assert!(!text.contains("PRIVATE KEY"));
    assert!(text.contains("rootpw --lock\n"));
}

#[test]
fn every_release_is_spoken_to_in_its_own_words() {
    for (release, has, lacks) in [
        (Release::El7, "\nauthconfig --enableshadow", "timesource"),
        (Release::El7, "\n%packages --excludedocs --instLangs=en_US\n", "--exclude-weakdeps"),
        (Release::El7, " --ntpservers=192.168.10.1\n", "ssh_config.d"),
        (Release::El7, "put /etc/ssh/ssh_config 644 ", "nftables.conf"),
        (Release::El8, "\n%packages --excludeWeakdeps --excludedocs --instLangs=en_US\n", "auth"),
        (Release::El8, "put /etc/sysconfig/iptables 600 ", "put /etc/sysconfig/nftables.conf"),
        (Release::El8, "put /etc/ssh/ssh_config.d/10-rekindle.conf 644 ", "sshd_config.d"),
        (Release::El9, "\ntimesource --ntp-server=192.168.10.1\n", "--ntpservers"),
        (Release::El9, "put /etc/sysconfig/nftables.conf 600 ", "ip6tables"),
        (Release::El10, "put /etc/ssh/sshd_config.d/10-rekindle.conf 600 ", "--instLangs"),
    ] {
        let text = of(release);
        assert!(text.contains(has), "{release} has {has}:\n{text}");
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let found = lacks != "auth" && lines.clone().any(|line| line.contains(lacks));
        assert!(!found, "{release} lacks {lacks}");
    }
}

#[test]
fn a_batch_system_without_packages_is_said_so_with_what_there_is() {
    let error = |release, scheduler| {
        render_of(release, scheduler, |_| {}, &[], None).map(drop).map_err(|e| e.to_string())
    };
    assert_eq!(
        error(Release::El8, Scheduler::Torque),
        Err("node `worker1`: there are no packages of torque for el8; set scheduler.kind to \
             \"openpbs\" or \"slurm\""
            .to_owned())
    );
    for (release, good) in [
        (Release::El7, &[Scheduler::Torque][..]),
        (Release::El8, &[Scheduler::OpenPbs, Scheduler::Slurm]),
        (Release::El9, &[Scheduler::Torque, Scheduler::OpenPbs, Scheduler::Slurm]),
        (Release::El10, &[Scheduler::Slurm]),
    ] {
        for scheduler in [Scheduler::Torque, Scheduler::OpenPbs, Scheduler::Slurm] {
            assert_eq!(error(release, scheduler).is_ok(), good.contains(&scheduler), "{release}");
        }
    }
}

#[test]
fn a_value_that_breaks_out_is_refused_by_name() {
    let error =
        rendered(|node| node.settings.kernel_args = vec!["a\"b".to_owned()]).expect_err("refused");
    assert!(error.to_string().starts_with("node `worker1`: kernel_args: `a\\\"b`"), "{error}");
}

#[test]
fn the_owners_pieces_stand_where_they_belong() {
    let snippets = [
        ("all.packages", "htop\n"),
        ("all.pre", "echo pre\n"),
        ("role-compute.post", "echo post\n"),
    ];
    let text = render_of(Release::El9, Scheduler::None, |_| {}, &snippets, None).expect("good");
    let at = |needle: &str| text.find(needle).unwrap_or_else(|| panic!("{needle} in\n{text}"));
    assert!(at("# kickstart.d/all.packages\nhtop\n") < at("%pre "));
    assert!(at("# kickstart.d/all.pre\necho pre\n%end") < at("choose_disk"));
    assert!(at("# kickstart.d/role-compute.post\necho post\n%end") < at("/event/installed"));
    assert!(at("# kickstart.d/role-compute.post") > at("/event/post"));
}

#[test]
fn a_snippet_may_not_use_what_the_installer_lacks() {
    let snippets = [("all.pre", "x=$(nproc)\n")];
    let error = render_of(Release::El9, Scheduler::None, |_| {}, &snippets, None);
    let message = error.expect_err("nproc").to_string();
    assert!(message.contains("`nproc` does not exist in the installer"), "{message}");
}

#[test]
fn the_disk_of_the_last_installation_is_asked_for() {
    let text = render_of(Release::El9, Scheduler::None, |_| {}, &[], Some("WD-1")).expect("good");
    assert!(text.contains("\nKNOWN_SERIAL='WD-1'\n"));
}

#[test]
fn who_wants_the_disk_first_keeps_the_firmwares_order() {
    let first = |boot_order| {
        let text = rendered(|node| node.settings.boot_order = boot_order).expect("kickstart");
        text.contains("efibootmgr -q -o")
    };
    assert!(first(BootOrder::Network));
    assert!(!first(BootOrder::Disk));
    rendered(|node| node.settings.unfit = UnfitPolicy::Local)
        .expect("does not concern the kickstart");
}

/// `first-boot` of a kickstart, its paths below `root`, with stand-ins for what it talks to.
fn first_boot(root: &std::path::Path) -> std::process::Output {
    let text = of(Release::El9);
    let (_, script) =
        text.split_once("cat >/usr/libexec/rekindle/first-boot <<'REKINDLE'\n").expect("script");
    let (script, _) = script.split_once("REKINDLE\n").expect("end");
    let root = root.display();
    let script = ["/etc/rekindle/", "/tmp/ks-script-", "/root/", "/var/log"]
        .iter()
        .fold(script.to_owned(), |text, path| text.replace(path, &format!("{root}{path}")));
    let stand_ins = "curl() { printf 200; }\nsystemctl() { :; }\n";
    std::process::Command::new("bash")
        .args(["-c", &format!("{stand_ins}{script}")])
        .output()
        .expect("bash")
}

#[test]
fn the_first_start_overwrites_what_shows_the_token() {
    let dir = tempfile::tempdir().expect("dir");
    let path = |name: &str| dir.path().join(name);
    let token = "0123456789abcdef0123456789abcdef";
    let secret = format!("url=http://192.168.10.1/node/{token}\n");
    for folder in ["etc/rekindle", "tmp", "root", "var/log/anaconda"] {
        std::fs::create_dir_all(path(folder)).expect("folder");
    }
    std::fs::write(path("etc/rekindle/report-to"), format!("http://192.168.10.1/node/{token}\n"))
        .expect("file");
    for file in ["tmp/ks-script-1", "root/original-ks.cfg", "var/log/anaconda/syslog"] {
        std::fs::write(path(file), &secret).expect("file");
        // What a second name still shows is what the blocks of the first one hold.
        std::fs::hard_link(path(file), path(&file.replace('/', "_"))).expect("link");
    }
    std::fs::hard_link(path("etc/rekindle/report-to"), path("report")).expect("link");
    let done = first_boot(dir.path());
    assert_eq!(String::from_utf8_lossy(&done.stderr), "");
    for gone in ["tmp/ks-script-1", "root/original-ks.cfg", "etc/rekindle/report-to"] {
        assert!(!path(gone).exists(), "{gone}");
    }
    for left in ["tmp_ks-script-1", "root_original-ks.cfg", "var_log_anaconda_syslog", "report"] {
        let bytes = std::fs::read(path(left)).expect("second name");
        assert!(!bytes.windows(token.len()).any(|part| part == token.as_bytes()), "{left}");
    }
    let log = std::fs::read_to_string(path("var/log/anaconda/syslog")).expect("log");
    assert_eq!(log, secret.replace(token, &"x".repeat(token.len())));
}
