//! The rule by which an installer chooses the disk it may write, run as the golden kickstarts
//! have it, on made-up machines.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};

/// A disk as the kernel shows it: name, GiB, where it hangs, and what else is to be read there.
type Disk<'a> = (&'a str, u64, &'a str, &'a [(&'a str, &'a str)]);

const SATA: &str = "pci0/ata1";
const USB: &str = "pci0/usb1/1-2";

/// The functions of `%pre`, as they stand in a golden kickstart.
fn functions(kickstart: &Path) -> String {
    let text = std::fs::read_to_string(kickstart).expect("golden");
    let (_, rest) = text.split_once("# The one disk that may be written").expect("the rule");
    let (functions, _) = rest.split_once("\ndisk=$(choose_disk)").expect("its end");
    format!("# {functions}\n")
}

/// Runs one of them on a machine.
fn run(kickstart: &Path, call: &str, machine: &Path) -> Output {
    let script = format!("{}{call}\n", functions(kickstart));
    let mut bash = Command::new("bash");
    bash.args(["-c", &script]).env("REKINDLE_SYS", machine.join("block"));
    bash.env("REKINDLE_DEV", machine.join("dev")).output().expect("bash")
}

/// The commands that `%pre` writes for the disk sda, of which partitions like `/data=sda4` stay.
pub(crate) fn partitions(kickstart: &Path, kept: &str) -> String {
    let parts = ["sda/sda1/partition", "sda/sda2/partition", "sda/sda4/partition"];
    let machine = machine(&[("sda", 80, SATA, &parts.map(|part| (&part[4..], "1")))]);
    let output = run(kickstart, &format!("partitions sda '{kept}'"), machine.path());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

fn machine(disks: &[Disk<'_>]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("folder");
    std::fs::create_dir(dir.path().join("block")).expect("folder");
    for (name, gib, place, more) in disks {
        let device = dir.path().join(place).join(name);
        let write = |file: &str, text: &str| {
            let path = device.join(file);
            std::fs::create_dir_all(path.parent().expect("parent")).expect("folder");
            std::fs::write(path, format!("{text}\n")).expect("write");
        };
        write("size", &(gib << 21).to_string());
        write("ro", "0");
        write("removable", "0");
        for (file, text) in *more {
            write(file, text);
        }
        symlink(&device, dir.path().join("block").join(name)).expect("link");
    }
    dir
}

#[track_caller]
fn check(kickstart: &str, disks: &[Disk<'_>], expected: &str) {
    let machine = machine(disks);
    let output = run(&Path::new("tests/golden").join(kickstart), "choose_disk", machine.path());
    let told = String::from_utf8_lossy(&output.stdout);
    let is_reason = expected.contains(' ');
    assert_eq!((told.trim_end(), output.status.success()), (expected, !is_reason), "{disks:?}");
}

const BY_SIZE: &str = "minimal/worker1.el9.ks";
const BY_SERIAL: &str = "odd/g-7.el9.ks";

#[test]
fn the_smallest_fixed_disk_that_is_large_enough_is_taken() {
    let (small, large): (Disk<'_>, Disk<'_>) = (("sda", 80, SATA, &[]), ("sdb", 500, SATA, &[]));
    check(BY_SIZE, &[small, large], "sda");
    check(BY_SIZE, &[("sda", 500, SATA, &[]), ("sdb", 80, SATA, &[])], "sdb");
    check(BY_SIZE, &[("sda", 9, SATA, &[]), ("nvme0n1", 10, "pci0/nvme0", &[])], "nvme0n1");
    check(
        BY_SIZE,
        &[("vda", 20, "virtio0", &[]), ("mmcblk0", 29, "mmc0", &[("device/type", "MMC")])],
        "vda",
    );
}

#[test]
fn what_can_be_carried_away_is_never_written() {
    let fixed: Disk<'_> = ("sdz", 500, SATA, &[]);
    for disk in [
        ("sda", 20, SATA, &[("removable", "1")][..]),
        ("sda", 20, SATA, &[("ro", "1")]),
        ("sda", 20, USB, &[]),
        ("sr0", 20, SATA, &[]),
        ("loop0", 20, "virtual", &[]),
        ("zram0", 20, "virtual", &[]),
        ("dm-0", 20, "virtual", &[]),
        ("md127", 20, "virtual", &[]),
        ("mmcblk0boot0", 20, "mmc0", &[("device/type", "MMC")]),
        ("nvme0c0n1", 20, "pci0/nvme0", &[]),
        // A card in the reader: the kernel calls it fixed.
        ("mmcblk0", 20, "mmc0", &[("device/type", "SD")]),
    ] {
        check(BY_SIZE, &[disk, fixed], "sdz");
    }
}

#[test]
fn the_disk_with_the_serial_is_taken_whatever_its_size() {
    let named: &[_] = &[("device/serial", "  WD-WCC4N5PL0000 ")];
    check(BY_SERIAL, &[("sda", 4000, SATA, named), ("sdb", 20, SATA, &[])], "sda");
    check(BY_SERIAL, &[("nvme0n1", 5, "nvme0", &[("serial", "WD-WCC4N5PL0000")])], "nvme0n1");
    check(
        BY_SERIAL,
        &[("sda", 4000, USB, named)],
        "no fixed disk is as cluster.toml wants it (1 GiB or more, serial WD-WCC4N5PL0000); found: sda=4000GiB",
    );
}

#[test]
fn a_machine_without_such_a_disk_is_told_why() {
    check(BY_SIZE, &[], "no fixed disk is as cluster.toml wants it (10 GiB or more); found: none");
    check(
        BY_SIZE,
        &[("sda", 9, SATA, &[]), ("sdb", 64, USB, &[])],
        "no fixed disk is as cluster.toml wants it (10 GiB or more); found: sda=9GiB sdb=64GiB",
    );
}
