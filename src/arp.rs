//! Asking a wire who has an address (RFC 826, RFC 5227): frames out, senders of frames in.

use std::net::Ipv4Addr;

use crate::mac::Mac;

/// A frame of this length and less fills up on its way (IEEE 802.3).
const FRAME_MIN: usize = 60;
/// EtherType, Ethernet, IPv4 and the lengths of their addresses.
const ARP: [u8; 8] = [0x08, 0x06, 0, 1, 0x08, 0, 6, 4];

/// Who has `ip`? Asked by `card`, and by no address: no neighbour notes it down (RFC 5227 section 2.1.1).
pub fn probe(card: Mac, ip: Ipv4Addr) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(card.octets());
    frame.extend(ARP);
    frame.extend([0, 1]);
    frame.extend(card.octets());
    frame.extend([0; 10]);
    frame.extend(ip.octets());
    frame.resize(FRAME_MIN, 0);
    frame
}

/// Which card says by this frame that it has which address: the sender of an ARP packet, question or answer.
pub fn sender(frame: &[u8]) -> Option<(Ipv4Addr, Mac)> {
    frame.get(12..20).filter(|head| **head == ARP)?;
    let card: [u8; 6] = frame.get(22..28)?.try_into().ok()?;
    let ip: [u8; 4] = frame.get(28..32)?.try_into().ok()?;
    let ip = Ipv4Addr::from(ip);
    // A probe's sender has no address yet.
    Some((ip, Mac::from_wire(card)?)).filter(|_| !ip.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::sample::mac;

    const IP: Ipv4Addr = Ipv4Addr::new(192, 168, 10, 200);

    #[test]
    fn a_probe_claims_nothing_and_an_answer_names_its_card() {
        let probe = probe(mac(1), IP);
        assert_eq!((probe.len(), &probe[38..42]), (60, &IP.octets()[..]));
        assert_eq!(sender(&probe), None);
        let mut answer = probe.clone();
        answer[21] = 2;
        answer[28..32].copy_from_slice(&IP.octets());
        assert_eq!(sender(&answer), Some((IP, mac(1))));
        // Cut off, of another protocol, from a group address.
        assert_eq!(sender(&answer[..31]), None);
        answer[13] = 0;
        assert_eq!(sender(&answer), None);
        answer[13] = 6;
        answer[22] = 1;
        assert_eq!(sender(&answer), None);
    }
}
