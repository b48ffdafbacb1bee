use super::*;
use crate::boot::decide;
use crate::cluster::sample::{mac, site};
use crate::machine::{Arch, Asker, Machine};
use crate::machine::{CpuLevel, Hardware};
use crate::media::tests::tree;
use crate::stage::Event;
use crate::stage::tests::state;

fn script(events: &[Event], last: u8, ip: Ipv4Addr) -> String {
    script_on(events, last, ip, Some(Hardware::default()))
}

fn script_on(events: &[Event], last: u8, ip: Ipv4Addr, hardware: Option<Hardware>) -> String {
    let (site, state, tree, token) = (site(), state(events), tree(), Token::masked());
    let asker = Asker::Ipxe { arch: Arch::Bios, http: true };
    let machine = Machine { mac: mac(last), asker, ip: Some(ip), hardware };
    let decision = decide(&site, &state, &machine);
    let installer = Installer { source: Source::Tree(&tree), token: &token, delay_s: 0 };
    render(&site.cluster, mac(last), &decision, Some(installer)).expect("script")
}

const OWN: Ipv4Addr = Ipv4Addr::new(192, 168, 10, 10);

// `initrd=` equal to the name, or UEFI kernels find none: theforeman/community-templates#496.
#[test]
fn an_armed_node_runs_the_installer_of_its_tree() {
    let text = script(&[Event::Armed], 1, OWN);
    assert!(text.starts_with("#!ipxe\n"));
    assert!(text.contains(
        "\nkernel --name vmlinuz http://192.168.10.1/tree/el9/images/pxeboot/vmlinuz initrd=initrd.img \
         inst.ks=http://192.168.10.1/node/TOKEN-MASKED/ks inst.stage2=http://192.168.10.1/tree/el9 "
    ), "{text}");
    assert!(text.contains(" BOOTIF=01-52-54-00-aa-bb-01 ip=dhcp nameserver=192.168.10.1 "));
    // dracut.cmdline(7): a switch with spanning tree lets nothing pass for 50 s (xcat2/xcat-core#1638).
    assert!(text.contains(" rd.net.timeout.carrier=60 rd.net.timeout.dhcp=90 "));
    assert!(text.contains(" console=ttyS0 || goto retry\n"));
}

// On UEFI `sanboot` fails where the disk is not connected (ipxe/ipxe#1334, #1341) or BootOrder is rewritten (#1324).
// What `exit` does is the firmware's affair (#601); OVMF goes on after a failure, and opens its menu after a success.
#[test]
fn an_installed_node_boots_its_disk_in_its_firmwares_way() {
    let text = script(&[], 1, OWN);
    assert!(
        text.contains("iseq ${platform} efi && exit 1 ||\nsanboot --no-describe --drive 0x80 ||\n")
    );
}

#[test]
fn a_stranger_sees_what_its_owner_must_type() {
    let text = script(&[], 99, Ipv4Addr::new(192, 168, 10, 200));
    assert!(text.contains("rekindle node add --mac 52:54:00:aa:bb:63\n"), "{text}");
    assert!(!text.contains("kernel"), "nothing is installed");
}

#[test]
fn an_armed_node_is_asked_for_its_hardware_first() {
    let text = script_on(&[Event::Armed], 1, OWN, None);
    assert!(
        text.contains("chain --replace --autofree http://192.168.10.1/ipxe/52-54-00-aa-bb-01/${cpu}/${netX/busid:hexraw} ||\n"),
        "{text}"
    );
    assert!(!text.contains("kernel "), "nothing is installed yet");
}

#[test]
fn a_computer_that_is_too_old_reads_why() {
    let old = Hardware { cpu: Some(CpuLevel::V1), nic: None };
    let text = script_on(&[Event::Armed], 1, OWN, Some(old));
    assert!(text.contains("worker1 cannot be installed: this CPU has no SSE4.2: el9 cannot run on it, el8 and el7 can\n"), "{text}");
}

#[test]
fn only_a_stranger_is_told_that_its_disk_is_as_it_was() {
    let (cluster, node) = (site().cluster, crate::cluster::sample::node(1));
    let held = |hold| render(&cluster, node.mac, &Decision::Hold(hold), None).expect("script");
    assert!(held(Hold::Unknown).contains("Nothing on its disk was touched."));
    assert!(!held(Hold::TriesUsedUp(&node)).contains("touched"), "it was installed half");
}
