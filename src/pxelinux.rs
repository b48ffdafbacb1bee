//! Configurations of PXELINUX: a decision -> the text that carries it out, for a BIOS that no iPXE runs on. The texts live
//! in `ipxe/`; what may stand in them is told by <https://wiki.syslinux.org/wiki/index.php?title=Config>.
//!
//! PXELINUX cannot look at the hardware as iPXE does: `%pre` will.

use askama::Template;

use crate::boot::Decision;
use crate::cluster::Cluster;
use crate::escape::ScreenText;
use crate::ipxe::{self, Boot, Installer, Order, ScriptError};
use crate::mac::Mac;
use crate::name::{NodeName, OsName};

/// Seconds between two tries to get an installer.
const PAUSE_S: u32 = 5;

#[derive(Template)]
#[template(path = "pxelinux-install.cfg")]
struct Install<'a> {
    name: &'a NodeName,
    mac: Mac,
    os: &'a OsName,
    kernel: &'a str,
    initrd: &'a str,
    args: String,
    /// Tenths of a second until it begins, and between its tries. None at all would be for ever.
    wait_ds: u32,
}

#[derive(Template)]
#[template(path = "pxelinux-local.cfg")]
struct Local {
    who: String,
    mac: Mac,
    drive: u8,
    why: ScreenText,
}

#[derive(Template)]
#[template(path = "pxelinux-hold.cfg")]
struct Wait {
    mac: Mac,
    reason: ScreenText,
    advice: ScreenText,
}

/// Renders the configuration of a machine. `install` must be given for an install decision.
pub fn render(
    cluster: &Cluster,
    mac: Mac,
    decision: &Decision<'_>,
    install: Option<Installer<'_>>,
) -> Result<String, ScriptError> {
    let text = match Order::new(cluster, mac, decision, install)? {
        Order::Install { name, os, boot: Boot { kernel, initrd, args }, delay_s, .. } => {
            let wait_ds = delay_s.max(PAUSE_S).saturating_mul(10);
            Install { name, mac, os, kernel, initrd, args, wait_ds }.render()
        }
        Order::Local { who, drive, why } => Local { who, mac, drive: drive.index(), why }.render(),
        Order::Wait { reason, advice } => Wait { mac, reason, advice }.render(),
    };
    ipxe::finished(mac, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::Hold;
    use crate::cluster::sample;
    use crate::ipxe::Source;
    use crate::machine::BiosDrive;
    use crate::media::tests::tree;
    use crate::stage::Arm;
    use crate::trust::Token;

    fn text(decision: &Decision<'_>, delay_s: u32) -> String {
        let (cluster, mac, tree, token) =
            (sample::cluster(), sample::mac(1), tree(), Token::masked());
        let installer = Installer { source: Source::Tree(&tree), token: &token, delay_s };
        render(&cluster, mac, decision, Some(installer)).expect("a text")
    }

    // <https://wiki.syslinux.org/wiki/index.php?title=Config>: a TIMEOUT of 0 is none; after it DEFAULT is run.
    #[test]
    fn the_installer_gets_what_ipxe_tells_it() {
        let node = sample::node(1);
        let decision = Decision::Install { node: &node, os: &node.os, arm: Arm::new(1) };
        let told = text(&decision, 0);
        assert!(told.contains("\n  INITRD tree/el9/images/pxeboot/initrd.img\n"), "{told}");
        assert!(
            told.contains("\n  APPEND inst.ks=http://192.168.10.1/node/TOKEN-MASKED/ks "),
            "{told}"
        );
        assert!(told.contains("\nTIMEOUT 50\n"), "0 would wait for ever");
        assert!(text(&decision, 90).contains("\nTIMEOUT 900\n"));
    }

    // INT 13h numbers (EDD-3), as <https://wiki.syslinux.org/wiki/index.php?title=Comboot/chain.c32> counts them.
    #[test]
    fn the_disk_that_was_installed_is_booted_whichever_it_is() {
        let node = sample::node(1);
        for (number, disk) in [(0x80, "hd0"), (0x82, "hd2")] {
            let drive = BiosDrive::try_from(number).expect("a disk");
            let told = text(&Decision::LocalBoot { node: Some(&node), drive, unfit: None }, 0);
            assert!(told.contains(&format!("\n  COM32 chain.c32\n  APPEND {disk}\n")), "{told}");
            assert!(!told.contains("LINUX tree/"), "nothing is installed");
        }
    }

    #[test]
    fn a_machine_that_waits_starts_over_and_installs_nothing() {
        let node = sample::node(1);
        for hold in [Hold::Unknown, Hold::TriesUsedUp(&node)] {
            let told = text(&Decision::Hold(hold), 0);
            assert!(told.contains("52:54:00:aa:bb:01") && told.contains("COM32 reboot.c32"));
            assert!(!told.contains("LINUX tree/"), "{told}");
        }
    }
}
