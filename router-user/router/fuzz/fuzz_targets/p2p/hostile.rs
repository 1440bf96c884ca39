//! A connection of ours whose other side has the keys and follows no rule.

use std::{
    io,
    task::{Context, Poll, Waker},
};

use rustls::{ConnectionTrafficSecrets, Error, ExtractedSecrets};

use super::{
    connection::{OpenedInto, TlsConnection},
    handshake::{NextSecrets, Secured},
    record::{MAX_CONTENT, MAX_RECORD, Sealer},
    script::{OurEnd, Script},
};

const RECORD_LIMIT: u64 = 1 << 20;

/// The key number `n` of a direction.
fn secrets(direction: u8, n: u8) -> ConnectionTrafficSecrets {
    let mut key = [direction; 32];
    key[0] = n;
    ConnectionTrafficSecrets::Aes256Gcm {
        key: key.into(),
        iv: [direction; 12].into(),
    }
}

/// Keys that follow by number.
struct Numbered {
    sending: u8,
    receiving: u8,
}

impl NextSecrets for Numbered {
    fn next_sending(&mut self) -> Result<ConnectionTrafficSecrets, Error> {
        self.sending = self.sending.wrapping_add(1);
        Ok(secrets(0, self.sending))
    }

    fn next_receiving(&mut self) -> Result<ConnectionTrafficSecrets, Error> {
        self.receiving = self.receiving.wrapping_add(1);
        Ok(secrets(1, self.receiving))
    }
}

/// Does what the input says.
pub fn run(bytes: &[u8]) {
    let mut script = Script(bytes);
    let end = OurEnd::default();
    end.0.borrow_mut().piece = MAX_RECORD;
    let secured = Secured {
        secrets: ExtractedSecrets {
            tx: (0, secrets(0, 0)),
            rx: (0, secrets(1, 0)),
        },
        next: Box::new(Numbered {
            sending: 0,
            receiving: 0,
        }),
        record_limit: RECORD_LIMIT,
        rest: Vec::new(),
    };
    let mut ours = TlsConnection::new(end.clone(), secured).expect("keys");
    let mut theirs = Sealer::new(&secrets(1, 0), 0, RECORD_LIMIT).expect("a key");
    let (mut n_keys, mut is_raw) = (0_u8, false);
    // What the connection may open, if all that has come is sealed.
    let (mut sealed, mut opened) = (Vec::new(), Vec::new());
    while !script.is_over() {
        match script.byte() % 8 {
            0 | 1 => {
                let n = script.number(MAX_CONTENT);
                let content = script.bytes(n);
                sealed.extend_from_slice(&content);
                push(&mut theirs, 23, &content, script.number(16), &end);
            }
            2 => {
                let n = script.number(64);
                let content = script.bytes(n);
                push(&mut theirs, script.byte(), &content, 0, &end);
                // It may be content.
                is_raw = true;
            }
            3 => {
                push(&mut theirs, 22, &[24, 0, 0, 1, script.byte() & 1], 0, &end);
                n_keys = n_keys.wrapping_add(1);
                theirs = Sealer::new(&secrets(1, n_keys), 0, RECORD_LIMIT).expect("a key");
            }
            4 => {
                let n = script.number(300);
                let raw = script.bytes(n);
                end.0.borrow_mut().to_ours.extend(raw);
                is_raw = true;
            }
            5 => end.0.borrow_mut().piece = 1 + script.number(MAX_RECORD),
            6 => {
                let _may_be_over = ours.seal(&[0; 100], &[]);
            }
            _ => {
                if take(&mut ours, script.byte(), &mut opened).is_err() {
                    break;
                }
            }
        }
        assert!(is_raw || sealed.starts_with(&opened), "content, in order");
    }
    end.0.borrow_mut().has_ended = true;
    let result = take(&mut ours, 0, &mut opened);
    assert!(
        result.is_err() || ours.has_ended(),
        "a connection that is cut has not ended in order"
    );
    assert!(is_raw || sealed.starts_with(&opened), "content, in order");
    let _may_be_over = ours.poll_close(&mut Context::from_waker(Waker::noop()));
}

/// Seals a record of any type, with padding.
fn push(theirs: &mut Sealer, typ: u8, content: &[u8], n_padding: usize, end: &OurEnd) {
    let mut behind = vec![0; 1 + n_padding];
    behind[0] = typ;
    let mut record = vec![0; Sealer::record_len(content.len() + n_padding)];
    theirs
        .seal_inner(content, &behind, &mut record)
        .expect("a record");
    end.0.borrow_mut().to_ours.extend(record);
}

/// Takes what has come.
fn take(ours: &mut TlsConnection<OurEnd>, choice: u8, opened: &mut Vec<u8>) -> io::Result<()> {
    let mut cx = Context::from_waker(Waker::noop());
    let mut target = vec![0; MAX_RECORD];
    loop {
        let content = if choice & 1 == 0 {
            match ours.open_into(&mut target)? {
                OpenedInto::Content(n) => Some(target[..n].to_vec()),
                OpenedInto::NoRoom => panic!("there is room for a record"),
                OpenedInto::Nothing => None,
            }
        } else {
            let at = ours.open()?;
            at.map(|at| ours.content(at).to_vec())
        };
        match content {
            Some(content) => {
                assert!(!content.is_empty() && content.len() <= MAX_CONTENT);
                opened.extend(content);
            }
            None if ours.has_ended() => return Ok(()),
            None => match ours.poll_receive(&mut cx) {
                Poll::Ready(received) => received?,
                Poll::Pending => return Ok(()),
            },
        }
    }
}
