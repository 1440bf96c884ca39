//! Records and messages that no peer of good will sends.

use std::{
    pin::Pin,
    task::{Context, Poll, Waker},
};

use rustls::ConnectionTrafficSecrets;

use super::*;
use crate::p2p::transport::tls::record::{ContentType, HEADER, MAX_RECORD, Opener, Sealer, TAG};

fn secrets() -> ConnectionTrafficSecrets {
    ConnectionTrafficSecrets::Chacha20Poly1305 {
        key: [7; 32].into(),
        iv: [9; 12].into(),
    }
}

/// Returns the body of the first record of a key, with this inside.
fn body(content: &[u8], behind: &[u8]) -> Vec<u8> {
    let mut record = vec![0; HEADER + content.len() + behind.len() + TAG];
    let mut sealer = Sealer::new(&secrets(), 0, 10).expect("a key");
    sealer
        .seal_inner(content, behind, &mut record)
        .expect("it fits a record");
    record.split_off(HEADER)
}

/// Opens a body in both ways, which agree.
fn open(body: &[u8]) -> Result<(ContentType, Vec<u8>), RecordError> {
    let mut in_place = body.to_vec();
    let mut target = vec![0; body.len()];
    let opener = || Opener::new(&secrets(), 0).expect("a key");
    let opened = opener().open_in_place(&mut in_place);
    assert_eq!(opener().open_into(body, &mut target), opened);
    let (typ, n) = opened?;
    assert_eq!(target[..n], in_place[..n]);
    target.truncate(n);
    Ok((typ, target))
}

#[test]
fn padding_is_taken_off_and_a_record_of_nothing_else_is_refused() {
    let padded = [23, 0, 0, 0, 0, 0];
    assert_eq!(
        open(&body(b"content", &padded)),
        Ok((ContentType::ApplicationData, b"content".to_vec()))
    );
    assert_eq!(
        open(&body(b"", &padded)),
        Ok((ContentType::ApplicationData, Vec::new()))
    );
    assert_eq!(
        open(&body(b"\0\0", &[23])),
        Ok((ContentType::ApplicationData, vec![0, 0]))
    );
    assert_eq!(open(&body(&[0; 100], &[0])), Err(RecordError::Type(0)));
}

#[test]
fn a_type_that_there_is_not_is_refused() {
    for typ in (1..=255).filter(|typ| !(21..=23).contains(typ)) {
        assert_eq!(open(&body(b"x", &[typ])), Err(RecordError::Type(typ)));
    }
}

#[test]
fn content_is_bounded_whatever_the_padding() {
    let most = vec![1; MAX_CONTENT];
    assert_eq!(
        open(&body(&most, &[23])).map(|(_, content)| content.len()),
        Ok(MAX_CONTENT)
    );
    let more = vec![1; MAX_CONTENT + 1];
    assert_eq!(
        open(&body(&more, &[23])),
        Err(RecordError::Length(MAX_CONTENT + 1))
    );
    assert_eq!(open(&[0; TAG]), Err(RecordError::Length(TAG)));
    assert_eq!(
        open(&[0; MAX_RECORD - HEADER + 1]),
        Err(RecordError::Length(MAX_RECORD - HEADER + 1))
    );
}

#[test]
fn a_changed_bit_anywhere_is_found() {
    let good = body(b"some content", &[23]);
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(open(&bad), Err(RecordError::Tag), "bit {bit}");
    }
}

#[test]
fn a_record_that_is_repeated_or_left_out_is_found() {
    let mut record = vec![0; Sealer::record_len(1)];
    let mut sealer = Sealer::new(&secrets(), 0, 10).expect("a key");
    let mut opener = Opener::new(&secrets(), 0).expect("a key");
    for left_out in [false, true] {
        if left_out {
            sealer
                .seal(ContentType::ApplicationData, b"a", &[], &mut record)
                .expect("seal");
        }
        sealer
            .seal(ContentType::ApplicationData, b"b", &[], &mut record)
            .expect("seal");
        let opened = opener.open_in_place(&mut record.clone()[HEADER..]);
        assert_eq!(opened.is_ok(), !left_out);
        if !left_out {
            let again = opener.open_in_place(&mut record[HEADER..]);
            assert_eq!(again, Err(RecordError::Tag));
            opener = Opener::new(&secrets(), 1).expect("a key");
        }
    }
}

#[test]
fn a_key_that_has_sealed_what_it_may_seals_no_more() {
    let mut record = vec![0; Sealer::record_len(1)];
    let mut sealer = Sealer::new(&secrets(), 0, 2).expect("a key");
    let mut seal = || sealer.seal(ContentType::ApplicationData, b"x", &[], &mut record);

    assert_eq!(
        [seal(), seal(), seal()],
        [Ok(()), Ok(()), Err(RecordError::Exhausted)]
    );
}

/// Has `send` send something to the other side, and returns what that makes of it.
fn outcome(send: impl FnOnce(&mut TlsConnection<End>, &Wire)) -> (io::Result<Vec<u8>>, bool) {
    let wire = Wire::default();
    let [mut near, mut far] = pair(&wire);
    send(&mut near, &wire);
    let mut cx = Context::from_waker(Waker::noop());
    assert!(near.poll_send(&mut cx).is_ready());
    let mut received = Vec::new();
    let result = loop {
        match far.open() {
            Ok(Some(at)) => received.extend_from_slice(far.content(at)),
            Ok(None) if far.has_ended() => break Ok(received),
            Ok(None) => match far.poll_receive(&mut cx) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(error)) => break Err(error),
                Poll::Pending => break Ok(received),
            },
            Err(error) => break Err(error),
        }
    };
    if result.is_err() {
        assert!(far.open().is_err() && far.seal(b"x", &[]).is_err(), "it is over");
    }
    (result, far.has_ended())
}

fn refused(send: impl FnOnce(&mut TlsConnection<End>, &Wire)) -> RecordError {
    let error = outcome(send).0.expect_err("a refusal");
    let cause = error
        .get_ref()
        .and_then(|error| error.downcast_ref::<RecordError>());
    *cause.expect("a fault of the records")
}

#[test]
fn what_is_not_protected_is_refused() {
    for typ in [0, 20, 21, 22, 24, 255] {
        let error = refused(|_, wire| wire.push(1, &[typ, 3, 3, 0, 20, 0, 0]));
        assert_eq!(error, RecordError::Unprotected(typ));
    }
}

#[test]
fn lengths_that_cannot_be_are_refused_before_the_rest_has_come() {
    for len in [0_u16, 1, 16, 16_641, u16::MAX] {
        let [high, low] = len.to_be_bytes();
        let error = refused(|_, wire| wire.push(1, &[23, 3, 3, high, low]));
        assert_eq!(error, RecordError::Length(len.into()));
    }
}

#[test]
fn a_peer_may_not_send_nothing_for_ever() {
    let send = |n: u32| {
        move |near: &mut TlsConnection<End>, _: &Wire| {
            (0..n).for_each(|_| near.seal(b"", &[]).expect("seal"));
            near.seal(b"x", &[]).expect("seal");
        }
    };
    assert_eq!(outcome(send(32)).0.expect("not too many"), b"x");
    assert_eq!(refused(send(33)), RecordError::Fruitless(32));
}

#[test]
fn messages_that_do_not_belong_behind_the_handshake_are_refused() {
    let messages: [&[u8]; 9] = [
        // A client's first words, and a request for a certificate.
        &[1, 0, 0, 1, 0],
        &[13, 0, 0, 0],
        // New keys of another length, with another word, and with something behind them.
        &[24, 0, 0, 0],
        &[24, 0, 0, 2, 0, 0],
        &[24, 0, 0, 1, 2],
        &[24, 0, 0, 1, 0, 4],
        &[24, 0, 0, 1, 0, 24, 0, 0, 1, 0],
        &[24, 255, 255, 255, 0],
        &[99, 0, 0, 0],
    ];
    for message in messages {
        let error = refused(|near, _| near.seal_as(ContentType::Handshake, message));
        assert_eq!(error, RecordError::Message, "{message:?}");
    }
}

#[test]
fn a_message_may_come_in_pieces_but_nothing_else_between_them() {
    let ticket = [4, 0, 0, 6, 1, 2, 3, 4, 5, 6, 4, 0, 0, 0];
    let (received, _) = outcome(|near, _| {
        ticket
            .chunks(3)
            .for_each(|part| near.seal_as(ContentType::Handshake, part));
        near.seal(b"x", &[]).expect("seal");
    });
    assert_eq!(received.expect("a ticket, which nobody uses"), b"x");

    let error = refused(|near, _| {
        near.seal_as(ContentType::Handshake, &ticket[..5]);
        near.seal(b"x", &[]).expect("seal");
    });
    assert_eq!(error, RecordError::Message);
}

#[test]
fn alerts_end_the_connection_and_a_goodbye_ends_it_in_order() {
    let (received, has_ended) = outcome(|near, _| {
        near.seal(b"last words", &[]).expect("seal");
        near.seal_as(ContentType::Alert, &[1, 0]);
        near.seal_as(ContentType::ApplicationData, b"from beyond");
    });
    assert_eq!(received.expect("an end in order"), b"last words");
    assert!(has_ended);

    let (received, has_ended) = outcome(|near, _| near.seal_as(ContentType::Alert, &[2, 49]));
    let error = received.expect_err("an alert");
    assert!(is_refusal(&error) && !has_ended, "{error:?}");

    for alert in [&[][..], &[2], &[1, 0, 0]] {
        let error = refused(|near, _| near.seal_as(ContentType::Alert, alert));
        assert_eq!(error, RecordError::Message);
    }
}

#[test]
fn a_flush_reaches_what_carries_the_connection() {
    let wire = Wire::default();
    let [near, _far] = pair(&wire);
    let (mut stream, mut cx) = (TlsStream::new(near), Context::from_waker(Waker::noop()));
    let n_before = wire.flushes(0);

    assert!(Pin::new(&mut stream).poll_write(&mut cx, b"held back").is_ready());
    assert!(Pin::new(&mut stream).poll_flush(&mut cx).is_ready());

    assert_eq!(wire.flushes(0), n_before + 1);
}

#[test]
fn a_peer_that_takes_nothing_does_not_make_us_hold_more_and_more() {
    let wire = Wire::default();
    let [mut near, _far] = pair(&wire);
    let mut n_sealed = 0;
    while near.seal(&[1; MAX_CONTENT], &[]).is_ok() {
        n_sealed += MAX_CONTENT;
    }
    assert!(
        (512 * 1024 - MAX_RECORD..=512 * 1024).contains(&n_sealed),
        "{n_sealed}"
    );
}

#[test]
fn the_peer_is_told_what_it_did() {
    let wire = Wire::default();
    let [mut near, mut far] = pair(&wire);
    let mut cx = Context::from_waker(Waker::noop());
    near.seal(b"x", &[]).expect("seal");
    let mut record = near.unsent().to_vec();
    *record.last_mut().expect("a tag") ^= 1;
    wire.push(1, &record);
    assert!(matches!(far.poll_receive(&mut cx), Poll::Ready(Ok(()))));
    assert!(far.open().is_err());

    assert!(matches!(near.poll_receive(&mut cx), Poll::Ready(Ok(()))));
    let error = near.open().expect_err("an alert");
    let alert = error
        .get_ref()
        .and_then(|error| error.downcast_ref::<rustls::Error>());
    let told = rustls::Error::AlertReceived(rustls::AlertDescription::BadRecordMac);
    assert_eq!(alert, Some(&told));
}

#[test]
fn whatever_bytes_come_the_connection_stands_or_ends_with_a_reason() {
    let mut number = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = move || {
        number ^= number << 13;
        number ^= number >> 7;
        number ^= number << 17;
        number
    };
    for _ in 0..300 {
        let n = next() as usize % 200;
        let mut bytes: Vec<u8> = (0..n).map(|_| next() as u8).collect();
        if next() % 2 == 0 {
            let len = (next() % 64) as u8;
            bytes.splice(..0, [23, 3, 3, 0, len]);
        }
        let (result, _) = outcome(|_, wire| wire.push(1, &bytes));
        if let Err(error) = result {
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{bytes:?}");
        }
    }
}
