//! Configurations of GRUB: a decision -> the text that carries it out, for firmware that runs nothing but what is
//! signed. The texts live in `ipxe/`.
//!
//! GRUB cannot look at the hardware as iPXE does: `%pre` will.

use askama::Template;

use crate::boot::Decision;
use crate::cluster::Cluster;
use crate::escape::ScreenText;
use crate::ipxe::{self, Boot, Installer, Order, ScriptError, Source};
use crate::mac::Mac;
use crate::media::Release;
use crate::name::{NodeName, OsName};

#[derive(Template)]
#[template(path = "grub-install.cfg")]
struct Install<'a> {
    name: &'a NodeName,
    mac: Mac,
    os: &'a OsName,
    kernel: &'a str,
    initrd: &'a str,
    /// GRUB of release 7 checks signatures in commands of their own.
    efi: &'static str,
    args: String,
    delay_s: u32,
}

#[derive(Template)]
#[template(path = "grub-local.cfg")]
struct Local {
    who: String,
    mac: Mac,
    why: ScreenText,
}

#[derive(Template)]
#[template(path = "grub-hold.cfg")]
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
        Order::Install { name, os, source, boot: Boot { kernel, initrd, args }, delay_s } => {
            let is_el7 = matches!(source, Source::Tree(tree) if tree.release == Release::El7);
            let efi = if is_el7 { "efi" } else { "" };
            Install { name, mac, os, kernel, initrd, efi, args, delay_s }.render()
        }
        Order::Local { who, why, .. } => Local { who, mac, why }.render(),
        Order::Wait { reason, advice } => Wait { mac, reason, advice }.render(),
    };
    ipxe::finished(mac, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::Hold;
    use crate::cluster::sample;
    use crate::media::Tree;
    use crate::media::tests::tree;
    use crate::stage::Arm;
    use crate::trust::Token;

    fn installs(release: Release) -> String {
        let (cluster, node) = (sample::cluster(), sample::node(1));
        let (tree, token) = (Tree { release, ..tree() }, Token::masked());
        let decision = Decision::Install { node: &node, os: &node.os, arm: Arm::new(1) };
        let installer = Installer { source: Source::Tree(&tree), token: &token, delay_s: 0 };
        render(&cluster, node.mac, &decision, Some(installer)).expect("a text")
    }

    // Release 7's GRUB 2.02 loads with Secure Boot by `linuxefi` alone; those of 8 and later by `linux`.
    #[test]
    fn the_installer_gets_what_ipxe_tells_it() {
        let text = installs(Release::El9);
        assert!(text.contains(
            "\nif linux /tree/el9/images/pxeboot/vmlinuz inst.ks=http://192.168.10.1/node/TOKEN-MASKED/ks \
             inst.stage2=http://192.168.10.1/tree/el9 "
        ), "{text}");
        assert!(text.contains(" rd.emergency=reboot console=ttyS0; then\n"), "{text}");
        assert!(text.contains("\n  if initrd /tree/el9/images/pxeboot/initrd.img; then\n"));
        assert!(installs(Release::El7).contains("\nif linuxefi /tree/el9/"));
    }

    // OVMF opens its menu after `exit`, so the disk is booted by the name of its loader (UEFI 2.10 section 3.5.1.1).
    #[test]
    fn a_machine_that_waits_or_boots_its_disk_installs_nothing() {
        let (cluster, node) = (sample::cluster(), sample::node(1));
        let drive = crate::machine::BiosDrive::FIRST;
        for decision in [
            Decision::LocalBoot { node: Some(&node), drive, unfit: None },
            Decision::Hold(Hold::Unknown),
            Decision::Hold(Hold::TriesUsedUp(&node)),
        ] {
            let text = render(&cluster, node.mac, &decision, None).expect("a text");
            assert!(!text.contains("linux /") && text.contains("52:54:00:aa:bb:01"), "{text}");
        }
        let probe = render(&cluster, node.mac, &Decision::Probe(&node), None);
        assert!(matches!(probe, Err(ScriptError::NoScript)));
    }
}
