use super::*;
use crate::cluster::sample;

const NOW: TimestampMs = 1_800_000_000_000;

fn wide() -> Cluster {
    let mut parts = sample::parts();
    parts.network.subnet = "10.0.0.0/8".parse().unwrap();
    parts.network.discovery.first = Ipv4Addr::new(10, 0, 0, 1);
    parts.network.discovery.last = Ipv4Addr::new(10, 255, 255, 254);
    Cluster::assemble(parts)
}

fn nth_mac(number: u16) -> Mac {
    let [high, low] = number.to_be_bytes();
    Mac::from_wire([2, 0, 0, 0, high, low]).unwrap()
}

#[test]
fn a_flood_of_macs_is_bounded_however_wide_the_range_is() {
    let (cluster, mut pool) = (wide(), Pool::default());
    let taken =
        (0..6000).filter_map(|number| pool.take(&cluster, nth_mac(number), Hold::Offer, NOW));
    assert_eq!(taken.count(), LEASES_MAX);
    assert_eq!((pool.leases.len(), pool.by_mac.len(), pool.by_expiry.len()), (4096, 4096, 4096));
    let fresh = Ipv4Addr::new(10, 77, 77, 77);
    assert_eq!(pool.claim(&cluster, nth_mac(6001), fresh, NOW), Claimed::NotLent);
}

#[test]
fn an_offer_does_not_shorten_a_lease() {
    let (cluster, mut pool, mac) = (sample::cluster(), Pool::default(), sample::mac(77));
    let ip = pool.take(&cluster, mac, Hold::Lease, NOW).unwrap();
    pool.take(&cluster, mac, Hold::Offer, NOW + 1000);
    let other = sample::mac(78);
    assert_eq!(pool.claim(&cluster, other, ip, NOW + LEASE_MS - 1), Claimed::SomebodyElses);
    assert_eq!(pool.claim(&cluster, other, ip, NOW + LEASE_MS), Claimed::Granted);
    assert_eq!(pool.ip_of(mac), None);
}

#[test]
fn a_range_that_moved_moves_its_machines() {
    let (mut pool, mac) = (Pool::default(), sample::mac(77));
    let first = pool.take(&sample::cluster(), mac, Hold::Lease, NOW).unwrap();
    let second = pool.take(&wide(), mac, Hold::Offer, NOW).unwrap();
    assert_ne!(first, second);
    assert_eq!((pool.ip_of(mac), pool.mac_of(first)), (Some(second), None));
}

#[test]
fn the_masters_address_is_never_lent() {
    let mut parts = sample::parts();
    parts.network.discovery.first = parts.network.address;
    parts.network.discovery.last = parts.network.address;
    let cluster = Cluster::assemble(parts);
    assert_eq!(Pool::default().take(&cluster, sample::mac(77), Hold::Offer, NOW), None);
}
