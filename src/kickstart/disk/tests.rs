//! `disk.sh` run by bash over a made-up `/sys/block`, with stand-ins for the programs it asks.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use askama::Template;
use tempfile::TempDir;

use super::*;

#[derive(Template)]
#[template(path = "disk.sh", syntax = "ks")]
struct Script {
    disk: DiskWords,
    append: String,
}

struct Computer(TempDir);

impl Computer {
    fn new() -> Self {
        let computer = Self(tempfile::tempdir().expect("dir"));
        for folder in ["sys", "dev", "bin", "devices/pci/ata1", "devices/usb1"] {
            std::fs::create_dir_all(computer.path(folder)).expect("folder");
        }
        computer.program("blkid", "cat \"$(dirname \"$0\")/../labels/${*: -1:1}\" 2>/dev/null");
        computer.program("lsblk", "exit 1");
        computer.program("smartctl", "exit 0");
        computer
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.0.path().join(name)
    }

    fn program(&self, name: &str, text: &str) {
        let path = self.path("bin").join(name);
        std::fs::write(&path, format!("#!/bin/bash\n{text}\n")).expect("program");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("chmod");
    }

    /// A disk with the given facts in its folder below `/sys/block`.
    fn disk(self, bus: &str, name: &str, gib: u64, facts: &[(&str, &str)]) -> Self {
        let device = self.path("devices").join(bus).join(name);
        std::fs::create_dir_all(device.join("device")).expect("folder");
        symlink(&device, self.path("sys").join(name)).expect("link");
        let write = |file: &str, text: &str| {
            let path = device.join(file);
            std::fs::create_dir_all(path.parent().expect("parent")).expect("folder");
            std::fs::write(path, format!("{text}\n")).expect("fact");
        };
        write("size", &(gib * SECTORS_PER_GIB).to_string());
        write("ro", "0");
        write("removable", "0");
        facts.iter().for_each(|(file, text)| write(file, text));
        self
    }

    /// A partition, with the label of its file system.
    fn partition(self, disk: &str, part: &str, label: &str) -> Self {
        let folder = self.path("sys").join(disk).join(part);
        std::fs::create_dir_all(&folder).expect("folder");
        std::fs::write(folder.join("partition"), "1\n").expect("partition");
        let labels = self
            .0
            .path()
            .join("labels")
            .join(self.path("dev").join(part).strip_prefix("/").expect("absolute"));
        std::fs::create_dir_all(labels.parent().expect("parent")).expect("folder");
        std::fs::write(labels, label).expect("label");
        self
    }

    /// A disk as the BIOS told of it, by EDD's names.
    fn bios(self, drive: &str, gib: u64, signature: &str) -> Self {
        let folder = self.path("edd").join(format!("int13_dev{drive}"));
        std::fs::create_dir_all(&folder).expect("folder");
        let sectors = format!("{}\n", gib * SECTORS_PER_GIB);
        std::fs::write(folder.join("sectors"), sectors).expect("sectors");
        if !signature.is_empty() {
            let file = folder.join("mbr_signature");
            std::fs::write(file, format!("{signature}\n")).expect("signature");
        }
        self
    }

    /// What `code` prints after `disk.sh`, and whether it succeeds.
    fn run(&self, rule: &DiskRule, code: &str) -> (bool, String) {
        let disk = DiskWords::new(rule, None).expect("words");
        let append = " --append=\"console=ttyS0 quiet\"".to_owned();
        let script = Script { disk, append }.render().expect("script");
        let path = format!("{}:/usr/bin:/bin", self.path("bin").display());
        let done = Command::new("bash")
            .args(["-c", &format!("{script}\n{code}")])
            .env_clear()
            .env("PATH", path)
            .env("REKINDLE_SYS", self.path("sys"))
            .env("REKINDLE_DEV", self.path("dev"))
            .env("REKINDLE_EDD", self.path("edd"))
            .output()
            .expect("bash");
        let said = String::from_utf8(done.stdout).expect("text");
        assert_eq!(String::from_utf8_lossy(&done.stderr), "", "{code}");
        (done.status.success(), said.trim_end().to_owned())
    }

    fn chosen(&self, rule: &DiskRule) -> String {
        self.run(rule, "choose_disk").1
    }
}

fn rule() -> DiskRule {
    DiskRule { min_gib: 10, root_gib: 30, ..DiskRule::default() }
}

const SATA: &str = "pci/ata1";

fn three() -> Computer {
    Computer::new()
        .disk(
            SATA,
            "sda",
            500,
            &[("device/model", "ST500DM002"), ("device/wwid", "naa.5000C500A1")],
        )
        .disk(SATA, "sdb", 120, &[("device/model", "INTEL SSDSC2"), ("serial", "PHDA 42")])
        .disk(SATA, "nvme0n1", 250, &[("wwid", "eui.0025385"), ("serial", "S3")])
}

#[test]
fn the_smallest_fixed_disk_is_chosen() {
    assert_eq!(three().chosen(&rule()), "sdb");
}

#[test]
fn what_can_be_pulled_out_or_not_be_written_is_never_chosen() {
    let computer = three()
        .disk("usb1", "sdc", 64, &[])
        .disk(SATA, "sdd", 32, &[("removable", "1")])
        .disk(SATA, "sde", 32, &[("ro", "1")])
        .disk(SATA, "mmcblk0boot0", 32, &[("device/type", "MMC")])
        .disk(SATA, "mmcblk0", 32, &[("device/type", "SD")])
        .disk(SATA, "nvme0c0n1", 32, &[])
        .disk(SATA, "zram0", 32, &[])
        .disk(SATA, "sr0", 32, &[])
        .disk(SATA, "loop0", 32, &[])
        .disk(SATA, "dm-0", 32, &[])
        .disk(SATA, "sdf", 0, &[]);
    assert_eq!(computer.chosen(&rule()), "sdb");
    let usb_only = Computer::new().disk("usb1", "sdc", 64, &[]);
    let (found, said) = usb_only.run(&rule(), "choose_disk");
    assert!(!found);
    assert_eq!(
        said,
        "no fixed disk is as cluster.toml wants it (10 GiB or more); found: sdc=64GiB"
    );
}

#[test]
fn every_condition_must_hold() {
    let some = |text: &str| Some(text.to_owned());
    for (rule, expected) in [
        (DiskRule { min_gib: 200, ..rule() }, "nvme0n1"),
        (DiskRule { min_gib: 300, max_gib: Some(500), ..rule() }, "sda"),
        (DiskRule { serial: some("PHDA42"), ..rule() }, "sdb"),
        (DiskRule { wwn: some("0x5000c500a1"), ..rule() }, "sda"),
        (DiskRule { wwn: some("eui.0025385"), ..rule() }, "nvme0n1"),
        (DiskRule { model: some("st500"), ..rule() }, "sda"),
    ] {
        assert_eq!(three().chosen(&rule), expected, "{rule:?}");
    }
    let both = DiskRule { model: some("ST500"), serial: some("PHDA42"), ..rule() };
    let said = three().chosen(&both);
    assert!(said.starts_with("no fixed disk is as cluster.toml wants it (10 GiB or more, serial PHDA42, model ST500); found: nvme0n1=250GiB"), "{said}");
}

#[test]
fn a_path_names_the_device_that_it_leads_to() {
    let computer = three();
    std::fs::write(computer.path("dev/sda"), "").expect("device");
    symlink(computer.path("dev/sda"), computer.path("dev/by-path")).expect("link");
    let path = Some(computer.path("dev/by-path").display().to_string());
    assert_eq!(computer.chosen(&DiskRule { path, ..rule() }), "sda");
}

#[test]
fn a_disk_that_fails_its_own_test_is_not_used() {
    let computer = three();
    let healthy = |rule: &DiskRule| computer.run(rule, "smart_of sdb").0;
    assert!(healthy(&rule()));
    // Bit 3 of smartctl's exit status: DISK FAILING. Others tell of old errors and missing features.
    computer.program("smartctl", "exit 68");
    assert!(healthy(&rule()));
    computer.program("smartctl", "exit 8");
    assert!(!healthy(&rule()));
    assert!(healthy(&DiskRule { use_failing: true, ..rule() }));
}

fn keep(mounts: &[&str]) -> DiskRule {
    let keep = mounts.iter().map(|mount| mount.parse().expect("mount")).collect();
    DiskRule { keep, ..rule() }
}

#[test]
fn an_empty_disk_is_laid_out_for_every_firmware() {
    let (_, text) = three().run(&rule(), "partitions sdb \"$(kept_on sdb)\"");
    assert_eq!(
        text,
        "ignoredisk --only-use=sdb\nzerombr\nclearpart --all --drives=sdb --initlabel\n\
         bootloader --location=mbr --boot-drive=sdb --timeout=3 --append=\"console=ttyS0 quiet\"\n\
         reqpart --add-boot\npart swap --recommended\npart / --fstype=xfs --size=3072 --grow"
    );
}

#[test]
fn a_partition_to_keep_is_made_once_and_then_left_alone() {
    let rule = keep(&["/data", "/scratch"]);
    let (_, first) = three().run(&rule, "partitions sdb \"$(kept_on sdb)\"");
    assert!(
        first.contains("clearpart --all --drives=sdb --initlabel --disklabel=gpt\n"),
        "{first}"
    );
    assert!(first.contains("part / --fstype=xfs --size=30720\n"), "{first}");
    assert!(first.contains("part /data --fstype=xfs --size=512 --grow --label=rk-data"), "{first}");

    let used = three()
        .partition("sdb", "sdb1", "")
        .partition("sdb", "sdb2", "rk-data")
        .partition("sdb", "sdb3", "other")
        .partition("sda", "sda1", "rk-scratch");
    let (_, kept) = used.run(&rule, "kept_on sdb");
    assert_eq!(kept, "/data=sdb2", "what lies on another disk is not ours");
    let (_, second) = used.run(&rule, "partitions sdb \"$(kept_on sdb)\"");
    assert!(second.contains("clearpart --drives=sdb --list=sdb1,sdb3\n"), "{second}");
    assert!(second.contains("part /data --onpart=sdb2 --noformat\n"), "{second}");
    assert!(second.contains("part /scratch --fstype=xfs --size=512 --grow"), "{second}");
    assert!(!second.contains("--initlabel"), "{second}");
}

#[test]
fn only_the_other_partitions_are_wiped() {
    let used = three().partition("sdb", "sdb1", "").partition("sdb", "sdb2", "rk-data");
    used.program("wipefs", "echo \"wipefs $*\" >>\"$(dirname \"$0\")/../wiped\"");
    used.program("dd", "echo \"dd $*\" >>\"$(dirname \"$0\")/../wiped\"");
    used.program("blockdev", "echo 251658240");
    let wiped = |rule: &DiskRule, code: &str| {
        let file = used.path("wiped");
        if file.exists() {
            std::fs::remove_file(&file).expect("remove");
        }
        used.run(rule, code);
        let dev = format!("{}/", used.path("dev").display());
        std::fs::read_to_string(&file).expect("wiped").replace(&dev, "")
    };
    let code = "clear_disk sdb \"$(kept_on sdb)\"";
    assert_eq!(wiped(&keep(&["/data"]), code), "wipefs -a -f sdb1\n");
    assert_eq!(
        wiped(&rule(), code),
        "wipefs -a -f sdb1\nwipefs -a -f sdb2\nwipefs -a -f sdb\n\
         dd if=/dev/zero of=sdb bs=1M count=10 conv=fsync\n\
         dd if=/dev/zero of=sdb bs=512 seek=251637760 count=20480 conv=fsync\n"
    );
}

#[test]
fn values_of_the_owner_never_run() {
    let some = |text: &str| Some(text.to_owned());
    let marker = Path::new("/tmp/rekindle-disk-ran");
    let hostile = DiskRule {
        serial: some("'; touch /tmp/rekindle-disk-ran; '"),
        model: some("$(touch /tmp/rekindle-disk-ran)`touch /tmp/rekindle-disk-ran`\"\\"),
        ..rule()
    };
    three().run(&hostile, "choose_disk");
    assert!(!marker.exists());
}

#[test]
fn the_bios_number_of_a_disk_is_found_by_its_size_and_signature() {
    let signed = |name: &str, signature: [u8; 4], computer: &Computer| {
        let mut sector = vec![0; 512];
        sector[440..444].copy_from_slice(&signature);
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
        std::fs::write(computer.path("dev").join(name), sector).expect("device");
    };
    let computer = three()
        .disk(SATA, "sdc", 120, &[])
        .disk(SATA, "sdd", 60, &[])
        .bios("80", 500, "0x00000000")
        .bios("83", 60, "")
        .bios("81", 120, "0x0a0b0c0d")
        .bios("82", 120, "0x11223344");
    for name in ["sda", "nvme0n1"] {
        signed(name, [0; 4], &computer);
    }
    // Without a boot sector these four bytes are no signature.
    std::fs::write(computer.path("dev/sdd"), [7; 512]).expect("device");
    signed("sdb", [0x0d, 0x0c, 0x0b, 0x0a], &computer);
    signed("sdc", [0x44, 0x33, 0x22, 0x11], &computer);
    let of = |name: &str| computer.run(&rule(), &format!("bios_drive_of {name}")).1;
    assert_eq!([of("sda"), of("sdb"), of("sdc")], ["0x80", "0x81", "0x82"]);
    assert_eq!(of("sdd"), "0x83");
    assert_eq!(of("nvme0n1"), "", "the BIOS did not see it");
}

#[test]
fn two_blank_disks_of_one_size_are_not_told_apart() {
    let computer = three().bios("80", 120, "").bios("81", 120, "0x00000000");
    std::fs::write(computer.path("dev/sdb"), [0; 512]).expect("device");
    assert_eq!(computer.run(&rule(), "bios_drive_of sdb").1, "");
    let uefi = three();
    std::fs::write(uefi.path("dev/sdb"), [0; 512]).expect("device");
    assert_eq!(uefi.run(&rule(), "bios_drive_of sdb").1, "", "UEFI numbers no disks");
}
