//! The key of stateless resets, by which a node that was restarted tells its peers that their connections are gone.

use aws_lc_rs::hmac;
use libp2p::identity::Keypair;
use quinn::crypto::{CryptoError, HmacKey};

use crate::p2p::transport::error::TransportError;

/// What the key is for. It is that of every libp2p node.
const DOMAIN: &[u8] = b"libp2p quic stateless reset key";

/// A key that an identity has for ever.
pub(super) struct ResetKey(hmac::Key);

impl ResetKey {
    pub(super) fn derive(keypair: &Keypair) -> Result<Self, TransportError> {
        let secret = keypair.derive_secret(DOMAIN).ok_or(TransportError::ResetKey)?;
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &secret)))
    }
}

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature: &mut [u8]) {
        signature.copy_from_slice(hmac::sign(&self.0, data).as_ref());
    }

    fn signature_len(&self) -> usize {
        hmac::HMAC_SHA256.digest_algorithm().output_len()
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        hmac::verify(&self.0, data, signature).map_err(|_mismatch| CryptoError)
    }
}
