use std::io::Write;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

async fn pair() -> (Stream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
    let address = listener.local_addr().expect("address");
    let (client, server) = tokio::join!(TcpStream::connect(address), listener.accept());
    let room = Room::new(1, 1);
    (Stream::new(server.expect("accept").0, room), client.expect("connect"))
}

fn file(content: &[u8]) -> File {
    let mut file = tempfile::tempfile().expect("file");
    file.write_all(content).expect("write");
    file
}

async fn sent(head: &[u8], content: &[u8], first: u64, len: u64) -> Vec<u8> {
    let (mut server, mut client) = pair().await;
    let body = body(file(content), content.len() as u64, first, len).expect("body");
    let write = async {
        let (mut head, mut body) = (Bytes::copy_from_slice(head), body);
        while !head.is_empty() || !body.is_empty() {
            let slices = [IoSlice::new(&head), IoSlice::new(&body)];
            let written = server.write_vectored(&slices).await.expect("write");
            let of_head = written.min(head.len());
            drop(head.split_to(of_head));
            drop(body.split_to(written - of_head));
        }
        server.shutdown().await.expect("shutdown");
    };
    let mut got = vec![];
    let (_, read) = tokio::join!(write, client.read_to_end(&mut got));
    read.expect("read");
    got
}

#[tokio::test]
async fn a_body_arrives_after_its_head_byte_for_byte() {
    let content: Vec<u8> = (0..3_000_000_u32).map(|index| (index % 251) as u8).collect();
    let got = sent(b"head\r\n", &content, 0, content.len() as u64).await;
    assert!(got == [b"head\r\n", &content[..]].concat(), "{} bytes", got.len());
}

#[tokio::test]
async fn the_end_of_a_big_answer_is_not_held_back() {
    let content = vec![7; 2 * CORKED + 1];
    let (mut server, mut client) = pair().await;
    let mut body =
        body(file(&content), content.len() as u64, 0, content.len() as u64).expect("body");
    let write = async {
        while !body.is_empty() {
            let written = server.write(&body).await.expect("write");
            drop(body.split_to(written));
        }
        assert!(server.is_corked);
        server.flush().await.expect("flush");
        assert!(!server.is_corked);
        server
    };
    let mut got = vec![0; content.len()];
    // The connection stays open, as between two requests.
    let (_server, read) = tokio::join!(write, client.read_exact(&mut got));
    read.expect("read");
    assert!(got == content);
}

#[tokio::test]
async fn a_slice_of_a_file_is_just_that() {
    let content: Vec<u8> = (0..100_000_u32).map(|index| (index % 251) as u8).collect();
    assert!(sent(b"", &content, 70_001, 5_000).await == content[70_001..75_001]);
    assert!(sent(b"h", b"", 0, 0).await == b"h");
}

#[tokio::test]
async fn bodies_are_forgotten_when_they_are_done() {
    let body = body(file(b"content"), 7, 0, 7).expect("body");
    let address = body.as_ptr().addr();
    let known = || BODIES.lock().expect("lock").contains_key(&address);
    assert!(known());
    drop(body);
    assert!(!known());
}

#[tokio::test]
async fn a_file_that_shrank_ends_the_connection() {
    let (mut server, _client) = pair().await;
    let file = file(&[7; 100_000]);
    let body = body(file.try_clone().expect("clone"), 100_000, 0, 100_000).expect("body");
    file.set_len(0).expect("truncate");
    let error = server.write(&body).await.expect_err("shrank");
    assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
}
