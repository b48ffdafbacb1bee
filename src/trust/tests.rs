use std::os::unix::fs::PermissionsExt;

use super::store::{StoreError, load_or_create};
use super::*;
use crate::cluster::sample::{cluster, mac, node};

pub(crate) fn secrets() -> Secrets {
    let dir = tempfile::tempdir().expect("dir");
    load_or_create(dir.path()).expect("secrets")
}

#[test]
fn tokens_differ_by_machine_and_arming_and_stay_the_same() {
    let secrets = secrets();
    let token = |last, arm| secrets.token(Grant { mac: mac(last), arm });
    assert_eq!(token(1, 1), token(1, 1));
    assert_ne!(token(1, 1), token(1, 2));
    assert_ne!(token(1, 1), token(2, 1));
    assert_eq!(token(1, 1).reveal().len(), 32);
    assert!(!format!("{:?} {secrets:?}", token(1, 1)).contains(token(1, 1).reveal()));
}

#[test]
fn secrets_are_made_once_and_only_their_owner_reads_them() {
    let dir = tempfile::tempdir().expect("dir");
    let (one, two) =
        (load_or_create(dir.path()).expect("1"), load_or_create(dir.path()).expect("2"));
    assert_eq!(
        (one.token_key, &one.munge_key, &one.public),
        (two.token_key, &two.munge_key, &two.public)
    );
    for file in std::fs::read_dir(dir.path().join("secrets")).expect("folder") {
        let file = file.expect("file");
        let mode = file.metadata().expect("metadata").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{file:?}");
    }
}

#[test]
fn a_secret_that_others_can_read_stops_us() {
    let dir = tempfile::tempdir().expect("dir");
    load_or_create(dir.path()).expect("secrets");
    let path = dir.path().join("secrets/munge.key");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).expect("chmod");
    assert!(matches!(load_or_create(dir.path()), Err(StoreError::Exposed { mode: 0o644, .. })));
}

#[test]
fn a_damaged_secret_stops_us() {
    let dir = tempfile::tempdir().expect("dir");
    load_or_create(dir.path()).expect("secrets");
    std::fs::write(dir.path().join("secrets/token.key"), "short").expect("write");
    let message = load_or_create(dir.path()).expect_err("damaged").to_string();
    assert!(message.contains("5 bytes, not 32"), "{message}");
}

#[test]
fn a_host_certificate_names_the_node_in_every_form() {
    let secrets = secrets();
    let key = PrivateKey::random(&mut OsRng, ssh_key::Algorithm::Ed25519).expect("key");
    let line = key.public_key().to_openssh().expect("line");
    let text = secrets.sign_host_key(&cluster(), &node(1), &line).expect("certificate");
    let certificate = ssh_key::Certificate::from_openssh(&text).expect("parses");
    assert_eq!(certificate.valid_principals(), ["worker1", "worker1.cluster.lan", "192.168.10.10"]);
    assert_eq!(certificate.cert_type(), CertType::Host);
    let ca = PublicKey::from_openssh(&secrets.public().host_ca).expect("ca");
    let print = ca.fingerprint(ssh_key::HashAlg::Sha256);
    certificate.validate_at(0, &[print]).expect("valid in 1970");
    certificate.validate_at(4_102_444_800, &[print]).expect("valid in 2100");
}

#[test]
fn only_an_ed25519_public_key_is_signed() {
    for bad in ["", "ssh-ed25519 AAAA", "garbage\nssh-ed25519 x", &"x".repeat(100_000)] {
        let got = secrets().sign_host_key(&cluster(), &node(1), bad);
        assert!(matches!(got, Err(CertificateError::NotAKey)), "{bad:.20}");
    }
}
