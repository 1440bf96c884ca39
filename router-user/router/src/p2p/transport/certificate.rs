//! The certificate of this node, which carries its libp2p key.
//!
//! <https://github.com/libp2p/specs/blob/master/tls/tls.md>. One that libp2p-tls makes is valid from 1975 on. A host without a
//! clock of its own boots in 1970, and would take neither its own nor its peers'.

use libp2p::identity::Keypair;
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// The extension that holds the key of libp2p, with a signature of the certificate's own key.
const EXTENSION: [u64; 9] = [1, 3, 6, 1, 4, 1, 53594, 1, 1];
const SIGNED_PREFIX: &[u8] = b"libp2p-tls-handshake:";

/// The extension that holds the number of this start of the node, which others leave alone: 2.25.1400598372. It tells two nodes
/// that run with one key from one that was started anew.
const INSTANCE: [u64; 3] = [2, 25, 1_400_598_372];
/// That extension as far as its content, which is 8 bytes in an octet string in another.
const INSTANCE_DER: [u8; 12] = [
    0x06, 0x06, 0x69, 0x85, 0x9B, 0xED, 0xDE, 0x64, 0x04, 0x0A, 0x04, 0x08,
];

const DER_SEQUENCE: u8 = 0x30;
const DER_OCTET_STRING: u8 = 0x04;

/// Why a certificate cannot be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum GenerateError {
    #[error("the identity cannot sign")]
    Sign(#[from] libp2p::identity::SigningError),
    #[error("its key or its signature cannot be made")]
    Make(#[from] rcgen::Error),
}

/// Makes a certificate of an identity that has been valid since 1970, and its private key.
pub(super) fn generate(
    identity: &Keypair,
    instance: u64,
) -> Result<(CertificateDer<'static>, PrivateKeyDer<'static>), GenerateError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let signed = [SIGNED_PREFIX, &key.public_key_der()].concat();
    let content = [
        der(DER_OCTET_STRING, &identity.public().encode_protobuf()),
        der(DER_OCTET_STRING, &identity.sign(&signed)?),
    ]
    .concat();
    let mut extension = CustomExtension::from_oid_content(&EXTENSION, der(DER_SEQUENCE, &content));
    extension.set_criticality(true);
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = rcgen::date_time_ymd(1970, 1, 1);
    params.custom_extensions.push(extension);
    let number = der(DER_OCTET_STRING, &instance.to_be_bytes());
    params
        .custom_extensions
        .push(CustomExtension::from_oid_content(&INSTANCE, number));
    let certificate = params.self_signed(&key)?;
    let private = PrivatePkcs8KeyDer::from(key.serialize_der());
    Ok((certificate.into(), private.into()))
}

/// Returns the number of the start of the node that a certificate was made in, if it says so. Nobody but the peer has made
/// the certificate, so that it can deceive about itself alone.
pub(super) fn instance_of(certificate: &CertificateDer<'_>) -> Option<u64> {
    let mut parts = certificate.windows(INSTANCE_DER.len() + size_of::<u64>());
    let content = parts.find_map(|part| part.strip_prefix(&INSTANCE_DER))?;
    Some(u64::from_be_bytes(content.try_into().ok()?))
}

/// Returns a value as DER: its tag, its length, and its content.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let len = content.len().to_be_bytes();
    let used = len.iter().position(|byte| *byte != 0).unwrap_or(len.len() - 1);
    let len = len.get(used..).unwrap_or_default();
    let mut bytes = vec![tag];
    match len {
        [short] if *short < 0x80 => bytes.push(*short),
        _ => {
            bytes.push(0x80 | len.len() as u8);
            bytes.extend_from_slice(len);
        }
    }
    bytes.extend_from_slice(content);
    bytes
}

#[cfg(test)]
mod tests {
    use libp2p::tls::certificate::parse;

    use super::*;

    #[test]
    fn a_certificate_names_its_identity_and_is_valid_from_the_first_second_of_the_clock() {
        let identity = Keypair::generate_ed25519();

        let (certificate, _key) = generate(&identity, 0x0102_0304_0506_0708).expect("a certificate");

        let parsed = parse(&certificate).expect("a certificate of libp2p");
        assert_eq!(parsed.peer_id(), identity.public().to_peer_id());
        assert_eq!(instance_of(&certificate), Some(0x0102_0304_0506_0708));
        let (stock, _) = libp2p::tls::certificate::generate(&identity).expect("a stock certificate");
        assert_eq!(instance_of(&stock), None);
        let not_before = b"\x17\x0d700101000000Z";
        let holds = |text: &[u8]| certificate.windows(text.len()).any(|bytes| bytes == text);
        assert!(holds(not_before), "{certificate:02X?}");
    }

    #[test]
    fn a_length_has_as_many_bytes_as_it_needs() {
        for (n, head) in [
            (0, &[4, 0][..]),
            (127, &[4, 127]),
            (128, &[4, 0x81, 128]),
            (255, &[4, 0x81, 255]),
            (256, &[4, 0x82, 1, 0]),
        ] {
            let bytes = der(DER_OCTET_STRING, &vec![7; n]);
            assert_eq!((&bytes[..head.len()], bytes.len()), (head, head.len() + n));
        }
    }
}
