use super::*;
use crate::cluster::sample::{cluster, mac, site, site_of};
use crate::cluster::{Os, Parts, sample};
use crate::machine::CpuLevel;
use crate::stage::Event;
use crate::stage::Report;
use crate::stage::tests::{RELEASED, SCRIPT, pre, reported, sent, state};

const IPXE: Asker = Asker::Ipxe { arch: Arch::Bios, http: true };
const OWN: Ipv4Addr = Ipv4Addr::new(192, 168, 10, 10);
const POOL: Ipv4Addr = Ipv4Addr::new(192, 168, 10, 200);

fn plan_of(events: &[Event], last: u8, ip: Ipv4Addr) -> Option<Plan> {
    let hardware = Some(Hardware::default());
    let machine = Machine { mac: mac(last), asker: IPXE, ip: Some(ip), hardware };
    decide(&site(), &state(events), &machine).plan()
}

#[test]
fn firmware_is_led_to_a_loader_it_can_run() {
    let (site, state) = (site(), State::default());
    for (asker, expected) in [
        (Asker::Rom(Arch::Bios), Decision::Chainload(Loader::Undionly)),
        (Asker::Rom(Arch::UefiX64), Decision::Chainload(Loader::SnponlyX64)),
        (Asker::HttpBoot(Arch::UefiX64), Decision::Chainload(Loader::SnponlyX64)),
        (Asker::Ipxe { arch: Arch::Bios, http: false }, Decision::Chainload(Loader::Undionly)),
        (Asker::Rom(Arch::UefiIa32), Decision::Chainload(Loader::IpxeIa32)),
        (Asker::Rom(Arch::UefiArm64), Decision::NoLoader(Arch::UefiArm64)),
        (Asker::System, Decision::Address),
    ] {
        let machine = Machine { mac: mac(1), asker, ip: None, hardware: None };
        assert_eq!(decide(&site, &state, &machine), expected);
    }
}

fn loader_of(site: &Site, events: &[Event], arch: Arch) -> Option<Loader> {
    let machine = Machine { mac: mac(1), asker: Asker::Rom(arch), ip: None, hardware: None };
    let state = state(events);
    let decision = decide(site, &state, &machine);
    let Decision::Chainload(loader) = decision else {
        assert_eq!(decision, Decision::NoLoader(arch));
        return None;
    };
    Some(loader)
}

// Threads of danderson/netboot (63) and ipxe/ipxe (288, 635, 1097): one board hangs in undionly.kpxe, another one in
// iPXE's own drivers.
#[test]
fn a_machine_that_hangs_in_a_loader_is_sent_the_next_one() {
    let loader = Loader::Undionly;
    let mut events = vec![Event::Armed, Event::LoaderSent { loader, bytes: 74_213 }];
    assert_eq!(loader_of(&site(), &events, Arch::Bios), Some(Loader::Undionly));
    events.push(Event::LoaderLost { loader });
    assert_eq!(loader_of(&site(), &events, Arch::Bios), Some(Loader::IpxePxe));
    let x64 = Some(Loader::SnponlyX64);
    assert_eq!(loader_of(&site(), &events, Arch::UefiX64), x64, "its other firmware");
    events.push(Event::Armed);
    assert_eq!(loader_of(&site(), &events, Arch::Bios), Some(Loader::IpxePxe));
    events.extend([Event::LoaderSent { loader: Loader::IpxePxe, bytes: 307_171 }, SCRIPT]);
    events.push(Event::LoaderLost { loader: Loader::IpxePxe });
    assert_eq!(loader_of(&site(), &events, Arch::Bios), Some(Loader::IpxePxe));
}

#[test]
fn the_owners_loader_is_the_only_one_where_it_is_there_and_fits() {
    let mut parts = sample::parts();
    parts.nodes[0].settings.loader = Some(Loader::Undionlyk);
    let mut site = site_of(Cluster::assemble(parts));
    let lost = [Event::LoaderLost { loader: Loader::Undionlyk }];
    assert_eq!(loader_of(&site, &lost, Arch::Bios), Some(Loader::Undionlyk));
    assert_eq!(loader_of(&site, &[], Arch::UefiX64), Some(Loader::SnponlyX64));
    site.loaders.remove(&Loader::Undionlyk);
    assert_eq!(loader_of(&site, &lost, Arch::Bios), Some(Loader::Undionly));
    site.loaders.remove(&Loader::Undionly);
    assert_eq!(loader_of(&site, &[], Arch::Bios), Some(Loader::IpxePxe));
    site.loaders.clear();
    assert_eq!(loader_of(&site, &[], Arch::Bios), None);
}

// tests/captures/e-ovmf-sb-shim-grub-http.pcap: Debian's signed GRUB that came by HTTP asks for nothing by HTTP.
#[test]
fn no_signed_loader_is_sent_by_http() {
    let mut site = site();
    for tree in site.trees.values_mut() {
        tree.has_shim = true;
    }
    let lost = [Loader::SnponlyX64, Loader::IpxeX64].map(|loader| Event::LoaderLost { loader });
    assert_eq!(loader_of(&site, &lost, Arch::UefiX64), Some(Loader::Shim));
    let asker = Asker::HttpBoot(Arch::UefiX64);
    let machine = Machine { mac: mac(1), asker, ip: None, hardware: None };
    let decision = decide(&site, &state(&lost), &machine);
    assert_eq!(decision, Decision::Chainload(Loader::SnponlyX64));
}

// A card of 2010 whose ROM is an iPXE without what is needed today: tinkerbell/smee and danderson/netboot send theirs.
#[test]
fn the_owners_loader_takes_the_place_of_the_roms_ipxe_once_a_boot() {
    let mut parts = sample::parts();
    parts.nodes[0].settings.loader = Some(Loader::Undionly);
    let site = site_of(Cluster::assemble(parts));
    let asks = |events: &[Event], arch, ip| {
        let asker = Asker::Ipxe { arch, http: true };
        let machine = Machine { mac: mac(1), asker, ip, hardware: None };
        decide(&site, &state(events), &machine) == Decision::Chainload(Loader::Undionly)
    };
    let loader = Event::LoaderSent { loader: Loader::Undionly, bytes: 74_213 };
    assert!(asks(&[Event::Armed], Arch::Bios, None));
    assert!(!asks(&[Event::Armed], Arch::UefiX64, None), "it is none for this firmware");
    assert!(!asks(&[Event::Armed], Arch::Bios, Some(OWN)), "a script is a script");
    let mut events = vec![Event::Armed, loader];
    assert!(!asks(&events, Arch::Bios, None), "it is the one that asks now");
    events.push(SCRIPT);
    assert!(asks(&events, Arch::Bios, None), "the next boot");
    let other = Machine { mac: mac(2), asker: IPXE, ip: None, hardware: None };
    assert!(!matches!(decide(&site, &state(&[]), &other), Decision::Chainload(_)));
}

#[test]
fn a_laptop_meets_silence_and_a_blank_stranger_a_hold_screen() {
    let (site, state) = (site(), State::default());
    let stranger =
        |asker| decide(&site, &state, &Machine { mac: mac(99), asker, ip: None, hardware: None });
    assert_eq!(stranger(Asker::System), Decision::Ignore(Ignored::Stranger));
    assert_eq!(stranger(IPXE), Decision::Hold(Hold::Unknown));
}

#[test]
fn only_an_armed_node_is_installed() {
    assert_eq!(plan_of(&[], 1, OWN), Some(Plan::Local));
    assert_eq!(plan_of(&[Event::Armed], 1, OWN), Some(Plan::Install));
    assert_eq!(plan_of(&[Event::Armed, Event::Disarmed], 1, OWN), Some(Plan::Local));
    let other = Ipv4Addr::new(192, 168, 10, 11);
    assert_eq!(plan_of(&[Event::Armed], 2, other), Some(Plan::Local), "another node's arming");
}

#[test]
fn an_installed_node_boots_its_disk_for_ever() {
    let installed = reported(Report::Installed);
    let mut events = vec![Event::Armed, SCRIPT, RELEASED, pre(), installed];
    for _ in 0..50 {
        assert_eq!(plan_of(&events, 1, OWN), Some(Plan::Local));
        events.push(sent(Plan::Local));
    }
}

#[test]
fn a_node_that_never_reports_is_held_after_its_tries() {
    let mut events = vec![Event::Armed];
    for _ in 0..3 {
        assert_eq!(plan_of(&events, 1, OWN), Some(Plan::Install));
        events.extend([SCRIPT, RELEASED]);
    }
    assert_eq!(plan_of(&events, 1, OWN), Some(Plan::Hold));
    events.push(sent(Plan::Hold));
    assert_eq!(plan_of(&events, 1, OWN), Some(Plan::Hold));
    events.push(Event::Armed);
    assert_eq!(plan_of(&events, 1, OWN), Some(Plan::Install), "its owner allows it again");
}

#[test]
fn a_node_that_never_fetches_its_kickstart_is_held_too() {
    let mut events = vec![Event::Armed];
    events.extend((0..BOOTS_MAX).map(|_| SCRIPT));
    assert_eq!(plan_of(&events, 1, OWN), Some(Plan::Hold));
}

#[test]
fn a_new_node_at_a_pool_address_must_ask_for_its_own_first() {
    assert_eq!(plan_of(&[Event::Armed], 1, POOL), Some(Plan::Hold));
    assert_eq!(plan_of(&[], 1, POOL), Some(Plan::Hold));
}

#[test]
fn who_asks_from_another_address_is_told_nothing_of_the_node() {
    let machine = Machine { mac: mac(1), asker: IPXE, ip: Some(POOL), hardware: None };
    let mut parts = sample::parts();
    let site = site_of(Cluster::assemble(parts.clone()));
    let tried = vec![Event::Armed, SCRIPT, RELEASED, SCRIPT, RELEASED, SCRIPT, RELEASED];
    for events in [vec![], vec![Event::Armed], tried.clone()] {
        let decision = decide(&site, &state(&events), &machine);
        assert!(matches!(decision, Decision::Hold(Hold::OldAddress(_))), "{decision:?}");
    }
    // Addresses of another DHCP server are whatever they are: an installed node boots all the same.
    parts.network.dhcp = DhcpMode::Proxy;
    let site = site_of(Cluster::assemble(parts));
    let decision = decide(&site, &state(&[]), &machine);
    assert!(matches!(decision, Decision::LocalBoot { node: None, .. }), "{decision:?}");
    let decision = decide(&site, &state(&tried), &machine);
    assert!(matches!(decision, Decision::Hold(Hold::OldAddress(_))), "{decision:?}");
}

fn kickstart(events: &[Event], arm: u64, peer: Ipv4Addr, now: TimestampMs) -> Result<(), Refusal> {
    match release_kickstart(&cluster(), &state(events), Grant { mac: mac(1), arm }, peer, now) {
        Release::Granted(node) => {
            assert_eq!(node.mac, mac(1));
            Ok(())
        }
        Release::Refused(refusal) => Err(refusal),
    }
}

#[test]
fn a_kickstart_is_released_to_its_node_until_the_next_stage() {
    let booted = vec![Event::Armed, SCRIPT];
    let stranger = Err(Refusal::WrongAddress { expected: OWN });
    assert_eq!(kickstart(&booted, 1, OWN, 3000), Ok(()));
    assert_eq!(kickstart(&booted, 1, POOL, 3000), stranger);
    assert_eq!(kickstart(&booted, 2, OWN, 3000), Err(Refusal::Over));
    assert_eq!(kickstart(&booted, 1, OWN, 2000 + WINDOW_MS + 1), Err(Refusal::Passed));

    let again = [&booted[..], &[RELEASED]].concat();
    assert_eq!(kickstart(&again, 1, OWN, 3000), Ok(()), "two NICs, curl --retry");
    let past = [&again[..], &[pre()]].concat();
    assert_eq!(kickstart(&past, 1, OWN, 5000), Err(Refusal::Passed));
    let power_cut = [&past[..], &[SCRIPT]].concat();
    assert_eq!(kickstart(&power_cut, 1, OWN, 6000), Ok(()));
    let done = [&past[..], &[reported(Report::Installed)]].concat();
    assert_eq!(kickstart(&done, 1, OWN, 5000), Err(Refusal::Over));
}

#[test]
fn a_kickstart_needs_its_script_first() {
    assert_eq!(kickstart(&[Event::Armed], 1, OWN, 1000), Err(Refusal::Passed));
}

#[test]
fn secrets_leave_only_while_the_installer_runs() {
    let secret = |events: &[Event]| {
        let grant = Grant { mac: mac(1), arm: 1 };
        matches!(release_secret(&cluster(), &state(events), grant, OWN), Release::Granted(_))
    };
    let mut events = vec![Event::Armed, SCRIPT];
    assert!(!secret(&events));
    events.extend([RELEASED, pre(), reported(Report::Post)]);
    assert!(secret(&events));
    events.push(reported(Report::Installed));
    assert!(!secret(&events));
}

#[expect(clippy::wildcard_enum_match_arm, reason = "what is not expected is shown")]
fn decided(change: impl FnOnce(&mut Parts), cpu: Option<CpuLevel>) -> String {
    let mut parts = sample::parts();
    let el8 = Os { fallback: None, ..parts.systems.values().next().expect("el9").clone() };
    parts.systems.insert("el8".parse().expect("os"), el8);
    change(&mut parts);
    let mut site = site_of(Cluster::assemble(parts));
    let el8 = site.trees.get_mut(&"el8".parse::<OsName>().expect("os")).expect("tree");
    (el8.release, el8.cpu) = (crate::media::Release::El8, CpuLevel::V1);
    let hardware = cpu.map(|cpu| Hardware { cpu: Some(cpu), nic: None });
    let machine = Machine { mac: mac(1), asker: IPXE, ip: Some(OWN), hardware };
    match decide(&site, &state(&[Event::Armed]), &machine) {
        Decision::Install { os, .. } => format!("install {os}"),
        Decision::Probe(_) => "probe".to_owned(),
        Decision::Hold(Hold::Unfit(_, unfit)) => format!("hold: {unfit}"),
        Decision::LocalBoot { unfit: Some(unfit), .. } => format!("local: {unfit}"),
        other => format!("{other:?}"),
    }
}

#[test]
fn hardware_is_looked_at_before_anything_is_installed() {
    let el8 = "el8".parse::<OsName>().ok();
    let with_fallback = |parts: &mut Parts| {
        parts.systems.values_mut().next_back().expect("el9").fallback.clone_from(&el8);
    };
    let local = |parts: &mut Parts| parts.nodes[0].settings.unfit = UnfitPolicy::Local;
    let too_old = "this CPU has no SSE4.2: el9 cannot run on it, el8 and el7 can";
    assert_eq!(decided(|_| {}, None), "probe");
    assert_eq!(decided(|_| {}, Some(CpuLevel::V2)), "install el9");
    assert_eq!(decided(|_| {}, Some(CpuLevel::V1)), format!("hold: {too_old}"));
    assert_eq!(decided(local, Some(CpuLevel::V1)), format!("local: {too_old}"));
    assert_eq!(decided(with_fallback, Some(CpuLevel::V1)), "install el8");
    assert!(decided(with_fallback, Some(CpuLevel::V0)).starts_with("hold: this CPU has no 64-bit"));
}
