use std::net::SocketAddrV4;

use super::*;
use crate::cluster::sample::{mac, node, site};
use crate::dhcp::Service;
use crate::dhcp::tests::{IPXE, packet};
use crate::stage::tests::journal;
use crate::trust::store;

const OWN: Ipv4Addr = Ipv4Addr::new(192, 168, 10, 10);
const NOBODY: Ipv4Addr = Ipv4Addr::new(192, 168, 10, 77);
/// Long after what the journal tells.
const NOW: TimestampMs = 10_000_000;

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
    boots(&mut master, 1);
    master
}

/// Its loader asks for an address.
fn boots(master: &mut Master, last: u8) -> Ipv4Addr {
    let bytes = &packet(mac(last), &[(53, &[1])], IPXE);
    let from = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68);
    let mut ask = || master.handle_dhcp(Datagram { bytes, from, service: Service::Dhcp }, NOW);
    match ask() {
        Ok(Step::Answer(answer)) => answer.yiaddr,
        Ok(Step::Try(ip)) => {
            master.tried_address(ip, None, NOW).expect("nobody is there");
            ip
        }
        Err(why) => panic!("{why}"),
    }
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
        let outcome = master.handle_tftp(loader.file_name(), NOBODY, NOW);
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
        let outcome = master.handle_tftp(name, OWN, NOW);
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
        assert_eq!(path_of(&master.handle_tftp(name, OWN, NOW)), Some(path), "{name}");
    }
    for name in ["grub.cfg-01-52-54-00-aa-bb-01", "grub/grub.cfg", "grub.cfg"] {
        let outcome = master.handle_tftp(name, OWN, NOW);
        let Reply::Text(text) = &outcome.reply else { panic!("{name}: {outcome:?}") };
        assert!(text.contains("linux /tree/el9/images/pxeboot/vmlinuz inst.ks="), "{text}");
        assert!(matches!(
            outcome.records.as_slice(),
            [(it, Event::ScriptSent { plan: crate::stage::Plan::Install, .. })] if *it == mac(1)
        ));
    }
    for name in ["grub.cfg-c0a80a0a", "grub/x86_64-efi/fs.lst"] {
        assert_eq!(
            master.handle_tftp(name, OWN, NOW).reply,
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
        assert_eq!(master.handle_tftp(module.file_name(), OWN, NOW).reply, reply);
    }
    let name = "pxelinux.cfg/01-52-54-00-aa-bb-01";
    let outcome = master.handle_tftp(name, OWN, NOW);
    let Reply::Text(text) = &outcome.reply else { panic!("{outcome:?}") };
    assert!(text.contains("\n  LINUX tree/el9/images/pxeboot/vmlinuz\n"), "{text}");
    assert_eq!(outcome.records.len(), 1, "it counts");
    let refused = |master: &Master, name, peer| {
        assert_eq!(master.handle_tftp(name, peer, NOW).reply, Reply::Refused(Refused::NotFound));
    };
    refused(&master, "pxelinux.cfg/00000000-0000-0000-0000-525400aabb01", OWN);
    refused(&master, "pxelinux.cfg/c0a80a0a", OWN);
    refused(&master, name, NOBODY);
    let outcome = self::master(&[Event::Armed], false).handle_tftp(name, OWN, NOW);
    assert!(matches!(outcome.reply, Reply::Text(text) if text.contains("COM32 reboot.c32")));
}

// A datagram's sender is easily invented.
#[test]
fn nobody_else_gets_a_configuration_of_grub() {
    let refused = |master: &Master, peer| {
        let outcome = master.handle_tftp("grub.cfg", peer, NOW);
        assert_eq!(outcome.reply, Reply::Refused(Refused::NotFound));
    };
    // At its prompt it would wait for somebody for ever.
    let starts_over = |master: &Master, peer| {
        let outcome = master.handle_tftp("grub.cfg", peer, NOW);
        let Reply::Text(text) = &outcome.reply else { panic!("{outcome:?}") };
        assert!(text.contains("\nreboot\n") && !text.contains("linux"), "{text}");
        assert!(!text.contains("worker"), "{text}");
        assert!(outcome.records.is_empty() && outcome.notes.is_empty());
    };
    refused(&master(&secure_boot(), true), NOBODY);
    starts_over(&master(&[Event::Armed], true), OWN);
    starts_over(&master(&secure_boot(), true), node(2).ip);
    starts_over(&master(&secure_boot(), false), OWN);
    let bare = master(&secure_boot(), false);
    assert_eq!(bare.handle_tftp("shimx64.efi", OWN, NOW).reply, Reply::Refused(Refused::NotFound));
}

// Sent once more because it was switched off and on: the one before counts as hung, this one runs.
#[test]
fn a_loader_that_runs_gets_its_configuration_whatever_was_thought_of_it() {
    let mut events = secure_boot();
    let sent = Event::LoaderSent { loader: Loader::Shim, bytes: 900_000 };
    events.extend([sent.clone(), Event::LoaderLost { loader: Loader::Shim }, sent]);
    let outcome = master(&events, true).handle_tftp("grub.cfg", OWN, NOW);
    assert!(matches!(outcome.reply, Reply::Text(text) if text.contains("linux")));
}

// `grub_config_search_through` opens the file before `read_config_file` does (grub2, net/net.c).
#[test]
fn a_configuration_that_is_read_twice_counts_once() {
    let mut events = secure_boot();
    let plan = crate::stage::Plan::Install;
    events.push(Event::ScriptSent { plan, os: None, why: String::new() });
    let master = master(&events, true);
    let read = |now| master.handle_tftp("grub.cfg-01-52-54-00-aa-bb-01", OWN, now);
    let arm = master.state().progress(mac(1)).and_then(|it| it.arm).expect("armed");
    let read_at = arm.window_ms.expect("a script");
    assert!(matches!(read(read_at + 100).reply, Reply::Text(text) if text.contains("linux")));
    assert!(read(read_at + 100).records.is_empty());
    assert_eq!(read(read_at + TWICE_MS).records.len(), 1);
}

// Any user of a node can ask for its script and what belongs to it, from the node's own address.
#[test]
fn a_node_that_still_runs_its_system_gets_no_installer() {
    let script = |master: &Master| {
        let request = Request {
            peer: OWN,
            method: Method::Get,
            path: "/ipxe/52-54-00-aa-bb-01/v2/80861000",
            body: b"",
        };
        let outcome = master.handle_http(&request, NOW);
        let Reply::Text(text) = outcome.reply else { panic!("{outcome:?}") };
        (text.contains("inst.ks="), outcome.records.len())
    };
    let mut master = master(&[Event::Armed], true);
    assert_eq!(script(&master), (true, 1));
    // Armed once more, while it runs.
    let entry = Entry { seq: 99, at_ms: NOW, mac: mac(1), event: Event::Armed };
    master.apply(&entry);
    assert_eq!(script(&master), (false, 0));
    // Only root has that port.
    let bytes = &packet(mac(1), &[(53, &[1])], IPXE);
    let from = SocketAddrV4::new(OWN, 40_000);
    drop(master.handle_dhcp(Datagram { bytes, from, service: Service::Dhcp }, NOW));
    assert_eq!(script(&master), (false, 0));
    boots(&mut master, 1);
    assert_eq!(script(&master), (true, 1));
}

#[test]
fn an_unknown_machine_that_hangs_is_sent_the_next_loader_too() {
    let mut master = master(&[], true);
    let stranger = mac(99);
    let ip = boots(&mut master, 99);
    let sent = |master: &mut Master, now| master.loader_sent(ip, "undionly.kpxe", 74_213, now);
    assert_eq!(sent(&mut master, NOW), None, "before it is written down");
    let mut seq = 100;
    let mut apply = |master: &mut Master, event: Event, at_ms: TimestampMs| {
        seq += 1;
        master.apply(&Entry { seq, at_ms, mac: stranger, event });
    };
    apply(&mut master, Event::Seen { arch: Arch::Bios, ip }, NOW);
    let (_, event) = sent(&mut master, NOW).expect("news");
    apply(&mut master, event, NOW);
    assert_eq!(sent(&mut master, NOW + 1), None, "said already");
    let late = NOW + crate::stage::ladder::PATIENCE_MS + 1;
    assert_eq!(master.overdue(NOW), []);
    let lost = (stranger, Event::LoaderLost { loader: Loader::Undionly });
    assert_eq!(master.overdue(late), std::slice::from_ref(&lost));
    apply(&mut master, lost.1, late);
    let next = |master: &Master, arch| boot::loaders(master.site(), master.state(), stranger, arch);
    assert_eq!(next(&master, Arch::Bios).first(), Some(&Loader::IpxePxe));
    assert_eq!(next(&master, Arch::UefiX64).last(), Some(&Loader::Shim));
    // Its signed GRUB waits for it to be added, as iPXE would.
    for loader in [Loader::SnponlyX64, Loader::IpxeX64] {
        apply(&mut master, Event::LoaderLost { loader }, late);
    }
    assert_eq!(path_of(&master.handle_tftp("shimx64.efi", ip, NOW)), Some("EFI/BOOT/BOOTX64.EFI"));
    let outcome = master.handle_tftp("grub.cfg", ip, NOW);
    assert!(matches!(outcome.reply, Reply::Text(text) if text.contains("rekindle node add --mac")));
}

// Its disk is full, or its last block is never acknowledged: what was sent is written down late or never.
#[test]
fn a_loader_that_could_not_be_written_down_is_awaited_for_a_while() {
    let mut master = master(&[Event::Armed], true);
    assert!(!master.state().awaits(mac(1)));
    assert!(master.loader_sent(OWN, "undionly.kpxe", 74_213, NOW).is_some());
    assert!(master.state().awaits(mac(1)));
    master.overdue(NOW + crate::stage::ladder::PATIENCE_MS - 1);
    assert!(master.state().awaits(mac(1)));
    master.overdue(NOW + crate::stage::ladder::PATIENCE_MS);
    assert!(!master.state().awaits(mac(1)));
}

#[test]
fn the_more_install_the_longer_the_next_one_waits_each_as_long_as_any_time() {
    let mut master = master(&[], true);
    let plan = crate::stage::Plan::Install;
    let waits = |master: &Master| (0..50).map(|last| master.delay_s(mac(last))).collect::<Vec<_>>();
    let mut seq = 0;
    for busy in 100..=200u8 {
        let before = waits(&master);
        let count = u32::from(busy - 100);
        let most = if count <= FEW { 0 } else { (count * 2).min(DELAY_MAX_S) - 1 };
        assert!(before.iter().all(|wait| *wait <= most), "{count} install: {before:?}");
        assert_eq!(before, waits(&master), "the same machine is told the same");
        for event in [Event::Armed, Event::ScriptSent { plan, os: None, why: String::new() }] {
            seq += 1;
            master.apply(&Entry { seq, at_ms: NOW, mac: mac(busy), event });
        }
    }
    let spread: std::collections::BTreeSet<_> = waits(&master).into_iter().collect();
    assert!(spread.len() > 10, "they begin one after the other: {spread:?}");
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
