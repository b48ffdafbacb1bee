use proptest::prelude::*;

use super::*;
use crate::tftp::packet::Mode;

const START: Duration = Duration::from_secs(1000);

fn content(len: usize) -> Vec<u8> {
    (0..len).map(|index| u8::try_from(index % 251).unwrap()).collect()
}

fn transfer(len: usize, options: &[(&str, &str)]) -> Transfer {
    let asked: Vec<_> =
        options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let agreed = Agreed::new(&asked, Mode::Octet, len);
    Transfer::new(Arc::new(Bytes::from(content(len))), agreed, START)
}

fn ack(block: u16) -> Vec<u8> {
    [&[0, 4][..], &block.to_be_bytes()].concat()
}

/// The numbers of the packets that leave now; 0 for an OACK.
fn sent(transfer: &mut Transfer) -> Vec<u16> {
    std::iter::from_fn(|| transfer.poll_transmit())
        .map(|bytes| if bytes[1] == 6 { 0 } else { u16::from_be_bytes([bytes[2], bytes[3]]) })
        .collect()
}

/// Plays the client, losing packets with the given chance in percent, until the transfer ends;
/// returns what arrived.
fn run(transfer: &mut Transfer, loss: u64, mut random: u64) -> Vec<u8> {
    let (mut now, mut got, mut wanted) = (START, vec![], 1u16);
    let mut lost = move || {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(0x1405_7b7e_f767_814f);
        (random >> 33) % 100 < loss
    };
    while transfer.outcome().is_none() {
        let (base, mut arrived) = (transfer.base, false);
        while let Some(bytes) = transfer.poll_transmit() {
            if lost() {
                continue;
            }
            arrived = true;
            if bytes[1] == 3 && [bytes[2], bytes[3]] == wanted.to_be_bytes() {
                got.extend(&bytes[4..]);
                wanted = wanted.wrapping_add(1);
            }
        }
        if arrived && !lost() {
            transfer.handle_packet(&ack(wanted.wrapping_sub(1)), now);
        }
        if let Some(deadline) = transfer.poll_timeout().filter(|_| transfer.base == base) {
            now = deadline;
            transfer.handle_timeout(now);
        }
    }
    got
}

// RFC 2347: ACK 0 answers the OACK.
#[test]
fn nothing_follows_the_oack_until_it_is_acknowledged() {
    let mut transfer = transfer(5000, &[("blksize", "512"), ("windowsize", "4")]);
    assert_eq!(sent(&mut transfer), [0]);
    assert!(sent(&mut transfer).is_empty());
    transfer.handle_packet(&ack(0), START);
    assert_eq!(sent(&mut transfer), [1, 2, 3, 4]);
}

#[test]
fn without_options_data_comes_at_once() {
    assert_eq!(sent(&mut transfer(5000, &[])), [1]);
}

// The Sorcerer's Apprentice, RFC 1123 section 4.2.3.1.
#[test]
fn a_duplicate_ack_sends_nothing() {
    let mut transfer = transfer(5000, &[]);
    sent(&mut transfer);
    transfer.handle_packet(&ack(1), START);
    assert_eq!(sent(&mut transfer), [2]);
    for block in [1, 0, 3, 40_000] {
        transfer.handle_packet(&ack(block), START);
        assert!(sent(&mut transfer).is_empty());
    }
}

// RFC 7440 section 4.
#[test]
fn it_is_our_turn_once_the_client_has_what_was_sent_and_never_with_windows() {
    let mut lock_step = transfer(2000, &[]);
    assert_eq!(sent(&mut lock_step), [1]);
    for (block, is_our_turn) in [(0, false), (1, true)] {
        lock_step.handle_packet(&ack(block), START);
        assert_eq!(lock_step.is_our_turn(), is_our_turn, "after ACK {block}");
    }
    assert_eq!(sent(&mut lock_step), [2]);
    lock_step.handle_packet(&ack(1), START);
    assert!(!lock_step.is_our_turn(), "the ACK of block 2 may stand behind it");
    lock_step.handle_timeout(START + Duration::from_secs(1));
    assert!(!lock_step.is_our_turn(), "or it was late");

    let mut window = transfer(5000, &[("windowsize", "4")]);
    assert_eq!(sent(&mut window), [0]);
    window.handle_packet(&ack(0), START);
    assert!(!window.is_our_turn());
}

#[test]
fn an_ack_inside_the_window_goes_back_to_the_block_behind_it() {
    let mut transfer = transfer(5000, &[("windowsize", "4")]);
    sent(&mut transfer);
    transfer.handle_packet(&ack(0), START);
    assert_eq!(sent(&mut transfer), [1, 2, 3, 4]);
    transfer.handle_packet(&ack(2), START);
    assert_eq!(sent(&mut transfer), [3, 4, 5, 6]);
}

// RFC 1350 section 6.
#[test]
fn content_that_fills_its_blocks_ends_with_an_empty_one() {
    let mut transfer = transfer(1024, &[]);
    for block in 1..=3 {
        assert_eq!(sent(&mut transfer), [block]);
        assert_eq!(transfer.outcome(), None);
        transfer.handle_packet(&ack(block), START);
    }
    assert_eq!(transfer.outcome(), Some(Outcome::Delivered));
    assert_eq!(transfer.poll_timeout(), None);
}

#[test]
fn empty_content_is_one_empty_block() {
    let mut transfer = transfer(0, &[]);
    assert_eq!(transfer.poll_transmit(), Some(vec![0, 3, 0, 1]));
    transfer.handle_packet(&ack(1), START);
    assert_eq!(transfer.outcome(), Some(Outcome::Delivered));
}

#[test]
fn a_silent_client_is_tried_with_growing_patience_and_then_left() {
    let mut transfer = transfer(5000, &[]);
    let (mut now, mut waits) = (START, vec![]);
    while let Some(deadline) = transfer.poll_timeout() {
        assert_eq!(sent(&mut transfer), [1]);
        transfer.handle_timeout(deadline - Duration::from_millis(1));
        assert!(sent(&mut transfer).is_empty(), "not before its time");
        waits.push((deadline - now).as_millis());
        now = deadline;
        transfer.handle_timeout(now);
    }
    assert_eq!(waits, [500, 1000, 2000, 4000, 4000, 4000, 4000, 4000]);
    assert_eq!(transfer.outcome(), Some(Outcome::Abandoned));
    assert!(sent(&mut transfer).is_empty());
}

#[test]
fn progress_makes_the_wait_short_again() {
    let mut transfer = transfer(5000, &[]);
    let deadline = transfer.poll_timeout().unwrap();
    sent(&mut transfer);
    transfer.handle_timeout(deadline);
    transfer.handle_packet(&ack(1), deadline);
    assert_eq!(transfer.poll_timeout(), Some(deadline + Duration::from_millis(500)));
}

// RFC 6298 section 2.
#[test]
fn the_wait_is_as_long_as_the_way() {
    let wait_after = |way_ms: u64| {
        let mut transfer = transfer(20_000, &[]);
        let mut now = START;
        for block in 1..=20 {
            sent(&mut transfer);
            now += Duration::from_millis(way_ms);
            transfer.handle_packet(&ack(block), now);
        }
        (transfer.poll_timeout().unwrap() - now).as_millis()
    };
    assert_eq!(wait_after(1), 50);
    assert!((200..=260).contains(&wait_after(200)), "{}", wait_after(200));
    assert_eq!(wait_after(9000), 4000);
}

// Karn's algorithm, RFC 6298 section 3.
#[test]
fn what_was_sent_twice_measures_nothing() {
    let mut transfer = transfer(5000, &[]);
    sent(&mut transfer);
    let deadline = transfer.poll_timeout().unwrap();
    transfer.handle_timeout(deadline);
    sent(&mut transfer);
    transfer.handle_packet(&ack(1), deadline + Duration::from_millis(1));
    assert!(transfer.way.is_none());
}

// Fast retransmit, RFC 5681 section 3.2; once, or duplicates would feed each other (RFC 1123 section 4.2.3.1).
#[test]
fn in_a_window_the_same_ack_again_is_believed_once() {
    let mut transfer = transfer(20_000, &[("windowsize", "4")]);
    let mut now = START;
    sent(&mut transfer);
    for block in [0, 4] {
        now += Duration::from_millis(10);
        transfer.handle_packet(&ack(block), now);
        sent(&mut transfer);
    }
    // Doubled on its way: it comes with its twin.
    transfer.handle_packet(&ack(4), now + Duration::from_millis(1));
    assert!(sent(&mut transfer).is_empty());
    // Block 5 was lost, 6 came.
    now += Duration::from_millis(10);
    transfer.handle_packet(&ack(4), now);
    assert_eq!(sent(&mut transfer), [5, 6, 7, 8]);
    transfer.handle_packet(&ack(4), now + Duration::from_millis(10));
    assert!(sent(&mut transfer).is_empty(), "once");
    transfer.handle_packet(&ack(8), now + Duration::from_millis(20));
    assert_eq!(sent(&mut transfer), [9, 10, 11, 12]);
}

#[test]
fn a_quick_client_that_falls_silent_is_waited_for_as_long_as_any_other() {
    let mut transfer = transfer(5000, &[]);
    sent(&mut transfer);
    let silent_since = START + Duration::from_millis(1);
    transfer.handle_packet(&ack(1), silent_since);
    let mut now = silent_since;
    while let Some(deadline) = transfer.poll_timeout() {
        sent(&mut transfer);
        now = deadline;
        transfer.handle_timeout(now);
    }
    assert_eq!(transfer.outcome(), Some(Outcome::Abandoned));
    let waited = now - silent_since;
    assert!(waited >= SILENCE_MAX && waited <= SILENCE_MAX + RTO_MAX, "{waited:?}");
}

#[test]
fn an_ack_that_comes_after_the_rewind_still_counts() {
    let mut transfer = transfer(5000, &[]);
    sent(&mut transfer);
    let deadline = transfer.poll_timeout().unwrap();
    transfer.handle_timeout(deadline);
    transfer.handle_packet(&ack(1), deadline);
    assert_eq!(sent(&mut transfer), [2]);
}

// RFC 2349: 1 to 255 s.
#[test]
fn an_agreed_timeout_is_kept_within_limits() {
    let wait = |seconds| transfer(10, &[("timeout", seconds)]).poll_timeout().unwrap() - START;
    assert_eq!(wait("3"), Duration::from_secs(3));
    assert_eq!(wait("255"), Duration::from_secs(10));
}

// dnsmasq, tftp.c: "some clients never send it".
#[test]
fn a_last_block_that_is_never_acknowledged_counts_as_delivered() {
    let mut transfer = transfer(600, &[]);
    sent(&mut transfer);
    transfer.handle_packet(&ack(1), START);
    let (mut now, mut copies) = (START, 0);
    while let Some(deadline) = transfer.poll_timeout() {
        assert_eq!(sent(&mut transfer), [2]);
        copies += 1;
        now = deadline;
        transfer.handle_timeout(now);
    }
    assert_eq!(transfer.outcome(), Some(Outcome::Delivered));
    let waited = now - START;
    assert!(
        copies > LAST_TRIES && waited >= LAST_SILENCE && waited < RTO_MAX * 2,
        "{copies} {waited:?}"
    );
}

// RFC 1350 section 7.
#[test]
fn a_client_that_never_answered_got_nothing() {
    let mut transfer = transfer(10, &[]);
    while let Some(deadline) = transfer.poll_timeout() {
        transfer.handle_timeout(deadline);
    }
    assert_eq!(transfer.outcome(), Some(Outcome::Abandoned));
}

// RFC 1122 section 4.1.3.3: the kernel tells of ports that are closed. dnsmasq, tftp.c: some clients never acknowledge
// the last block.
#[test]
fn a_port_that_closes_behind_the_last_block_has_it() {
    let closed_after = |acks: u16| {
        let mut transfer = transfer(600, &[]);
        sent(&mut transfer);
        for block in 1..=acks {
            transfer.handle_packet(&ack(block), START);
            sent(&mut transfer);
        }
        transfer.handle_closed();
        transfer.outcome()
    };
    assert_eq!(closed_after(0), Some(Outcome::Abandoned));
    assert_eq!(closed_after(1), Some(Outcome::Delivered));
}

// RFC 1350 section 7; edk2 asks for the size this way (tests/captures/c-ovmf-virtio-snponly2025.pcap).
#[test]
fn an_error_ends_it_without_a_word() {
    let mut transfer = transfer(5000, &[("tsize", "0")]);
    sent(&mut transfer);
    transfer.handle_packet(b"\0\x05\0\x08User aborted the transfer\0", START);
    assert_eq!(transfer.outcome(), Some(Outcome::Aborted { code: 8 }));
    assert!(sent(&mut transfer).is_empty());
    transfer.handle_packet(&ack(0), START);
    assert_eq!(transfer.outcome(), Some(Outcome::Aborted { code: 8 }));
}

/// A file that was cut off after it was opened.
#[derive(Debug)]
struct Cut;

impl Content for Cut {
    fn len(&self) -> usize {
        2000
    }

    fn read(&self, offset: usize, buffer: &mut [u8]) -> Option<()> {
        (offset + buffer.len() <= 512).then_some(())
    }
}

#[test]
fn a_file_that_shrinks_ends_with_an_error_and_never_with_zeros() {
    let agreed = Agreed::new(&[], Mode::Octet, Cut.len());
    let mut transfer = Transfer::new(Arc::new(Cut), agreed, START);
    assert_eq!(sent(&mut transfer), [1]);
    transfer.handle_packet(&ack(1), START);
    assert_eq!(transfer.poll_transmit().map(|bytes| bytes[1]), Some(5));
    assert_eq!(transfer.outcome(), Some(Outcome::Unreadable));
    assert_eq!(transfer.poll_transmit(), None);
}

#[test]
fn what_cannot_be_read_ends_a_burst_and_is_said_by_itself() {
    let asked = [("windowsize".to_owned(), "4".to_owned())];
    let agreed = Agreed::new(&asked, Mode::Octet, Cut.len());
    let mut transfer = Transfer::new(Arc::new(Cut), agreed, START);
    let mut out = vec![];
    assert!(transfer.poll_burst(&mut out).is_some());
    transfer.handle_packet(&ack(0), START);
    assert_eq!((transfer.poll_burst(&mut out), out.len()), (Some(516), 516));
    let each = transfer.poll_burst(&mut out);
    assert_eq!((each.map(usize::from), out[1]), (Some(out.len()), 5));
    assert_eq!(transfer.poll_burst(&mut out), None);
}

// Numbers go on at 0, as in dnsmasq; iPXE reads that (net/udp/tftp.c).
#[test]
fn delivers_across_the_block_number_wrap() {
    for (blksize, window) in [("8", 1), ("8", 16)] {
        let windowsize = window.to_string();
        let mut transfer =
            transfer(8 * 65_540 + 3, &[("blksize", blksize), ("windowsize", &windowsize)]);
        assert_eq!(run(&mut transfer, 0, 1), content(8 * 65_540 + 3));
        assert_eq!(transfer.outcome(), Some(Outcome::Delivered));
    }
}

#[test]
fn survives_loss_for_every_seed() {
    for (seed, window) in (0..300).zip([1, 4, 16].into_iter().cycle()) {
        let windowsize = window.to_string();
        let mut transfer = transfer(40_000, &[("blksize", "1432"), ("windowsize", &windowsize)]);
        let got = run(&mut transfer, 10, seed);
        assert_eq!(transfer.outcome(), Some(Outcome::Delivered), "seed {seed}");
        assert_eq!(got, content(40_000), "seed {seed}");
    }
}

proptest! {
    #[test]
    fn a_burst_is_the_same_datagrams_one_behind_the_other(
        len in 0usize..200_000,
        window in 1u16..100,
        blksize in 8u16..2000,
        acks in prop::collection::vec(0u16..20, 0..40),
    ) {
        let asked = [("windowsize", window.to_string()), ("blksize", blksize.to_string())];
        let asked = asked.each_ref().map(|(name, value)| (*name, value.as_str()));
        let (mut one_by_one, mut at_once) = (transfer(len, &asked), transfer(len, &asked));
        let mut out = vec![];
        let mut block = 0u16;
        for ahead in acks {
            let datagrams: Vec<_> = std::iter::from_fn(|| one_by_one.poll_transmit()).collect();
            let mut cut = vec![];
            while let Some(each) = at_once.poll_burst(&mut out) {
                prop_assert!(out.len() <= 65_507 && out.len() <= 64 * usize::from(each));
                cut.extend(out.chunks(usize::from(each)).map(<[u8]>::to_vec));
            }
            prop_assert_eq!(&datagrams, &cut);
            for transfer in [&mut one_by_one, &mut at_once] {
                transfer.handle_packet(&ack(block), START);
            }
            block = block.wrapping_add(ahead);
        }
    }

    #[test]
    fn any_packets_keep_the_invariant(
        len in 0usize..5000,
        window in 1u16..20,
        packets in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..6), any::<u16>(), 0u64..3000), 0..60),
    ) {
        let mut transfer = transfer(len, &[("windowsize", &window.to_string()), ("blksize", "100")]);
        let mut now = START;
        for (junk, block, wait) in packets {
            now += Duration::from_millis(wait);
            transfer.handle_timeout(now);
            transfer.handle_packet(&junk, now);
            transfer.handle_packet(&ack(block % 64), now);
            let burst = sent(&mut transfer);
            prop_assert!(burst.len() <= usize::from(window));
            prop_assert!(transfer.base <= transfer.next && transfer.next <= transfer.last + 1);
        }
    }
}
