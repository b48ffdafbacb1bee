use proptest::prelude::*;

use super::*;

fn check(method: Method, path: &str, expected: &str) {
    let got = match route(method, path) {
        Ok(Endpoint::Script(mac, None)) => format!("script {mac}"),
        Ok(Endpoint::Script(mac, Some(found))) => format!("script {mac} {found:?}"),
        Ok(Endpoint::Loader(loader)) => format!("loader {loader}"),
        Ok(Endpoint::Node { token, what }) => format!("{token} {what:?}"),
        Ok(Endpoint::File { os, root, path }) => format!("{os} {root:?} {}", path.as_str()),
        Err(NoEndpoint::NotFound) => "404".to_owned(),
        Err(NoEndpoint::Method { allow }) => format!("405 {allow}"),
    };
    assert_eq!(got, expected, "{method:?} {path}");
}

// Doubled slashes: shim 16.1 asks for `/sb//grubx64.efi`.
#[test]
fn every_route_is_found() {
    for (path, expected) in [
        ("/ipxe/52-54-00-aa-bb-01", "script 52:54:00:aa:bb:01"),
        (
            "/ipxe/52-54-00-aa-bb-01/v2/018086100e",
            "script 52:54:00:aa:bb:01 Hardware { cpu: Some(V2), nic: Some(PciId { vendor: 32902, device: 4110 }) }",
        ),
        (
            "/ipxe/52-54-00-aa-bb-01/unknown/",
            "script 52:54:00:aa:bb:01 Hardware { cpu: None, nic: None }",
        ),
        ("/boot/snponly.efi", "loader snponly.efi"),
        ("/node/abc/ks", "abc Kickstart"),
        ("/node/abc/secret/munge.key", "abc MungeKey"),
        ("/tree/el9/.treeinfo", "el9 Tree .treeinfo"),
        ("/tree/el9//images/pxeboot/vmlinuz", "el9 Tree images/pxeboot/vmlinuz"),
        ("/repo/el9/a%2Bb-1.0.rpm", "el9 Repo a+b-1.0.rpm"),
        ("/keys/el9/key1.asc", "el9 Keys key1.asc"),
    ] {
        check(Method::Get, path, expected);
    }
    check(Method::Post, "/node/abc/event/first-boot", "abc Event(FirstBoot)");
    check(Method::Post, "/node/abc/host-cert", "abc HostCertificate");
}

#[test]
fn nothing_else_is() {
    for path in [
        "",
        "/",
        "/index.html",
        "/ipxe/",
        "/ipxe/nonsense",
        "/boot/../etc/passwd",
        "/node/abc",
        "/node/abc/event/unknown",
        "/tree/el9",
        "/tree/el9/",
        "/tree/EL9/x",
        "/tree/../x",
        "/tree/el9/../../etc/passwd",
        "/tree/el9/%2e%2e/x",
        "/tree/el9/a%2fb",
        "/tree/el9/%00",
        "/tree/el9/%ff",
        "/node/abc/secret/token.key",
    ] {
        check(Method::Get, path, "404");
    }
}

#[test]
fn the_wrong_method_is_told_the_right_one() {
    check(Method::Post, "/node/abc/ks", "405 GET, HEAD");
    check(Method::Get, "/node/abc/event/pre", "405 POST");
    check(Method::Post, "/tree/el9/.treeinfo", "405 GET, HEAD");
}

proptest! {
    #[test]
    fn no_path_panics_and_none_escapes(path in "/(tree|repo)/el9/[a-z./%0-9]{0,40}") {
        if let Ok(Endpoint::File { path, .. }) = route(Method::Get, &path) {
            prop_assert!(path.as_str().split('/').all(|segment| !matches!(segment, "" | "." | "..")));
        }
    }
}
