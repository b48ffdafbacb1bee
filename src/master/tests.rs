use super::*;
use crate::cluster::sample::{mac, node, site};
use crate::stage::tests::journal;
use crate::trust::store;

const OWN: Ipv4Addr = Ipv4Addr::new(192, 168, 10, 10);
const NOBODY: Ipv4Addr = Ipv4Addr::new(192, 168, 10, 77);

/// A master whose first node has lived through that, and whose tree brings signed loaders or does not.
fn master(events: &[Event], has_shim: bool) -> Master {
    let dir = tempfile::tempdir().expect("folder");
    let secrets = Arc::new(store::load_or_create(dir.path()).expect("secrets"));
    let mut site = site();
    for tree in site.trees.values_mut() {
        tree.has_shim = has_shim;
    }
    let mut master = Master::new(Arc::new(site), secrets);
    for entry in journal(events) {
        master.apply(&entry);
    }
    master
}

/// Armed, and nothing was heard from these loaders.
fn armed_and_lost(lost: &[Loader]) -> Vec<Event> {
    let lost = lost.iter().map(|loader| Event::LoaderLost { loader: *loader });
    [Event::Armed].into_iter().chain(lost).collect()
}

/// Led to the signed loaders.
fn secure_boot() -> Vec<Event> {
    armed_and_lost(&[Loader::SnponlyX64, Loader::IpxeX64])
}

fn path_of(outcome: &Outcome) -> Option<&str> {
    match &outcome.reply {
        Reply::File { os, root: Root::Tree, path } if os.as_str() == "el9" => Some(path.as_str()),
        Reply::File { .. } | Reply::Text(_) | Reply::Secret(_) => None,
        Reply::Program(_) | Reply::Refused(_) => None,
    }
}

#[test]
fn a_loader_is_anybodys_and_nothing_else_has_its_name() {
    let master = master(&[], true);
    for loader in Loader::ALL.into_iter().filter(|loader| !loader.is_of_tree()) {
        let outcome = master.handle_tftp(loader.file_name(), NOBODY);
        assert_eq!(outcome.reply, Reply::Program(Program::Loader(loader)));
    }
    for name in [
        "autoexec.ipxe",
        "shim_certificate_0.efi",
        "boot/undionly.kpxe",
        "pxelinux.cfg/default",
        "boot/ldlinux.c32",
        "tree/el9/.treeinfo",
        "tree/el9",
    ] {
        let outcome = master.handle_tftp(name, OWN);
        assert_eq!(outcome.reply, Reply::Refused(Refused::NotFound), "{name}");
    }
}

// The names that shim 16.1 and GRUB 2.06 ask for in tests/captures/e-ovmf-sb-shim-grub-tftp.pcap, and those of Enterprise
// Linux's GRUB, which looks beside its own file.
#[test]
fn a_node_that_was_sent_to_the_signed_loader_gets_all_that_follows() {
    let master = master(&secure_boot(), true);
    for (name, path) in [
        ("shimx64.efi", "EFI/BOOT/BOOTX64.EFI"),
        ("grubx64.efi", "EFI/BOOT/grubx64.efi"),
        ("sb/grubx64.efi", "EFI/BOOT/grubx64.efi"),
        ("tree/el9/images/pxeboot/vmlinuz", "images/pxeboot/vmlinuz"),
        ("tree/el9/images/pxeboot/initrd.img", "images/pxeboot/initrd.img"),
    ] {
        assert_eq!(path_of(&master.handle_tftp(name, OWN)), Some(path), "{name}");
    }
    for name in ["grub.cfg-01-52-54-00-aa-bb-01", "grub/grub.cfg", "grub.cfg"] {
        let outcome = master.handle_tftp(name, OWN);
        let Reply::Text(text) = &outcome.reply else { panic!("{name}: {outcome:?}") };
        assert!(text.contains("linux /tree/el9/images/pxeboot/vmlinuz inst.ks="), "{text}");
        assert!(matches!(
            outcome.records.as_slice(),
            [(it, Event::ScriptSent { plan: crate::stage::Plan::Install, .. })] if *it == mac(1)
        ));
    }
    for name in ["grub.cfg-c0a80a0a", "grub/x86_64-efi/fs.lst"] {
        assert_eq!(
            master.handle_tftp(name, OWN).reply,
            Reply::Refused(Refused::NotFound),
            "{name}"
        );
    }
}

// Its names: <https://wiki.syslinux.org/wiki/index.php?title=PXELINUX>. The one with the machine's UUID is asked for first.
#[test]
fn a_node_that_was_sent_to_pxelinux_gets_all_that_follows() {
    let lost = [Loader::Undionly, Loader::IpxePxe, Loader::Undionlyk];
    let master = master(&armed_and_lost(&lost), false);
    for module in crate::machine::Module::ALL {
        let reply = Reply::Program(Program::Module(module));
        assert_eq!(master.handle_tftp(module.file_name(), OWN).reply, reply);
    }
    let name = "pxelinux.cfg/01-52-54-00-aa-bb-01";
    let outcome = master.handle_tftp(name, OWN);
    let Reply::Text(text) = &outcome.reply else { panic!("{outcome:?}") };
    assert!(text.contains("\n  LINUX tree/el9/images/pxeboot/vmlinuz\n"), "{text}");
    assert_eq!(outcome.records.len(), 1, "it counts");
    let refused = |master: &Master, name, peer| {
        assert_eq!(master.handle_tftp(name, peer).reply, Reply::Refused(Refused::NotFound));
    };
    refused(&master, "pxelinux.cfg/00000000-0000-0000-0000-525400aabb01", OWN);
    refused(&master, "pxelinux.cfg/c0a80a0a", OWN);
    refused(&master, name, NOBODY);
    refused(&self::master(&[Event::Armed], false), name, OWN);
}

// A datagram's sender is easily invented.
#[test]
fn nobody_else_gets_a_configuration_of_grub() {
    let refused = |master: &Master, peer| {
        let outcome = master.handle_tftp("grub.cfg", peer);
        assert_eq!(outcome.reply, Reply::Refused(Refused::NotFound));
        assert!(outcome.records.is_empty() && outcome.notes.is_empty());
    };
    refused(&master(&[Event::Armed], true), OWN);
    refused(&master(&secure_boot(), true), NOBODY);
    refused(&master(&secure_boot(), true), node(2).ip);
    refused(&master(&secure_boot(), false), OWN);
    let bare = master(&secure_boot(), false);
    assert_eq!(bare.handle_tftp("shimx64.efi", OWN).reply, Reply::Refused(Refused::NotFound));
}

#[test]
fn only_silence_that_was_listened_to_is_written_down() {
    let sent = Event::LoaderSent { loader: Loader::Undionly, bytes: 74_213 };
    let patience = crate::stage::ladder::PATIENCE_MS;
    // Sent at 2000, before we were there.
    let mut late = master(&[Event::Armed, sent.clone()], true);
    assert_eq!(late.overdue(3000), []);
    assert_eq!(late.overdue(3000 + patience), []);
    let mut early = master(&[Event::Armed, sent], true);
    assert_eq!(early.overdue(1000), []);
    assert_eq!(early.overdue(2000 + patience), []);
    let lost = (mac(1), Event::LoaderLost { loader: Loader::Undionly });
    assert_eq!(early.overdue(2001 + patience), [lost]);
}
