//! The refusal of a peer that is not configured, as either side finds it among the causes of an error.

use std::{error::Error, io, iter};

use quinn::ConnectionError;
use quinn_proto::TransportErrorCode;
use rustls::{AlertDescription, CertificateError};

/// Says whether a connection failed because one side does not know the other: the accepting side finds what it refused,
/// and the dialler the alert that says so.
pub(in crate::p2p) fn is_refusal(error: &(dyn Error + 'static)) -> bool {
    causes(error).any(|cause| {
        if let Some(error) = cause.downcast_ref::<rustls::Error>() {
            return is_tls_refusal(error);
        }
        cause
            .downcast_ref::<ConnectionError>()
            .is_some_and(is_quic_refusal)
    })
}

fn is_tls_refusal(error: &rustls::Error) -> bool {
    matches!(
        error,
        rustls::Error::AlertReceived(AlertDescription::AccessDenied)
            | rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)
    )
}

fn is_quic_refusal(error: &ConnectionError) -> bool {
    let code = match error {
        ConnectionError::ConnectionClosed(close) => close.error_code,
        ConnectionError::TransportError(error) => error.code,
        _ => return false,
    };
    code == TransportErrorCode::crypto(AlertDescription::AccessDenied.into())
}

/// Returns an error and its causes, those that an I/O error wraps as well.
pub(super) fn causes<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    iter::successors(Some(error), |&error| match error.downcast_ref::<io::Error>() {
        Some(io) => io.get_ref().map(|inner| inner as &(dyn Error + 'static)),
        None => error.source(),
    })
}
