use super::*;

const TABLE: &str = "\
   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  131: 00000000:0043 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 48213 2 0000000000000000 0
  133: 0100A8C0:0045 00000000:0000 07 00000000:00000000 00:00000000 00000000   107        0 48219 2 0000000000000000 0
 broken
";

#[test]
fn the_sockets_of_a_port_are_found_in_the_kernels_table() {
    assert_eq!(inodes(TABLE, 67), [48213]);
    assert_eq!(inodes(TABLE, 69), [48219]);
    assert!(inodes(TABLE, 68).is_empty());
    assert!(inodes("", 67).is_empty());
}

#[test]
fn a_taken_port_is_named_with_its_owner() {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = socket.local_addr().unwrap().port();
    let at = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
    let lo: IfName = "lo".parse().unwrap();
    let error = explain(&lo, at, io::ErrorKind::AddrInUse.into());
    let BindError::Taken { owner: Some(owner), .. } = &error else { panic!("{error:?}") };
    assert_eq!(owner.pid, std::process::id());
    let text = error.to_string();
    assert!(text.contains(&format!("port {port} is taken by {owner}")), "{text}");
}

#[test]
fn an_interface_that_is_missing_is_said_to_be() {
    let gone: IfName = "none0".parse().unwrap();
    let error = open(&gone, SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap_err();
    assert_eq!(error.to_string(), "there is no network interface none0; `ip link` lists them");
}
