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
    let error = rendered(|node| node.kernel_args = vec!["a\"b".to_owned()]).expect_err("refused");
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
        let text = rendered(|node| node.boot_order = boot_order).expect("kickstart");
        text.contains("efibootmgr -q -o")
    };
    assert!(first(BootOrder::Network));
    assert!(!first(BootOrder::Disk));
    rendered(|node| node.unfit = UnfitPolicy::Local).expect("does not concern the kickstart");
}
