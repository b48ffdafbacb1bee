//! Whether an address is free that is to be lent.

use super::*;

// RFC 2131 section 2.2: the allocating server should probe the address before it offers it.
#[test]
fn the_wire_is_asked_before_an_address_is_lent_and_not_again_while_it_is() {
    let mut wire = Wire::new();
    let Ok(Step::Try(ip)) = wire.first_step(STRANGER) else { panic!("not asked") };
    assert!(sample::network().discovery.contains(ip));
    let mac = mac(STRANGER);
    assert_eq!(wire.first_step(STRANGER), Err(Ignored::Trying { mac, ip }));
    // Whoever asked was stopped: it is asked again.
    wire.now += 2000;
    assert_eq!(wire.first_step(STRANGER), Ok(Step::Try(ip)));
    assert_eq!(wire.dhcp.tried(ip, None, wire.now), Ok(()));
    assert_eq!(wire.lend(STRANGER), ip);
    assert!(matches!(wire.first_step(STRANGER), Ok(Step::Answer(it)) if it.yiaddr == ip));
    // Its lease is over, and somebody else may have moved in.
    wire.now += pool::LEASE_MS;
    assert_eq!(wire.first_step(STRANGER), Ok(Step::Try(ip)));
    // The machine itself answers: it goes on using what it was lent.
    assert_eq!(wire.dhcp.tried(ip, Some(mac), wire.now), Ok(()));
    assert!(matches!(wire.first_step(STRANGER), Ok(Step::Answer(it)) if it.yiaddr == ip));
}

#[test]
fn an_address_that_somebody_uses_is_not_lent_for_ten_minutes() {
    let mut wire = Wire::small(2);
    let Ok(Step::Try(used)) = wire.first_step(STRANGER) else { panic!("not asked") };
    let user = mac(99);
    assert_eq!(wire.dhcp.tried(used, Some(user), wire.now), Err(InUse { ip: used, user }));
    let Ok(Step::Try(other)) = wire.first_step(STRANGER) else { panic!("not asked") };
    assert_ne!(other, used);
    wire.dhcp.tried(other, None, wire.now).unwrap();
    assert_eq!(wire.lend(STRANGER), other);
    assert_eq!(wire.first_step(STRANGER + 1), Err(Ignored::PoolFull(mac(STRANGER + 1))));
    wire.now += 10 * 60 * 1000;
    assert_eq!(wire.first_step(STRANGER + 1), Ok(Step::Try(used)));
    // A word that comes late, of an address that nobody holds, changes nothing.
    assert_eq!(wire.dhcp.tried(Ipv4Addr::new(192, 168, 10, 250), Some(user), wire.now), Ok(()));
}

#[test]
fn a_nodes_own_address_is_offered_without_a_question() {
    assert!(matches!(Wire::new().first_step(1), Ok(Step::Answer(it)) if it.yiaddr == ip(10)));
}
