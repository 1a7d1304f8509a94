//! TLS of connections that Lockhouse opens: by rustls, always with the certificate and the name checked.

use rustls::crypto::ring::default_provider;
use rustls::{ClientConfig, RootCertStore};

/// The certificates that this machine trusts, or those of the file that `SSL_CERT_FILE` names.
///
/// # Errors
/// The end of a sentence for the operator if there are none. It begins with what is to be checked.
pub fn machine_roots() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(
            "cannot be checked: this machine has no certificates; install ca-certificates, or name a file in SSL_CERT_FILE"
                .to_owned(),
        );
    }
    Ok(roots)
}

/// The settings of a client that trusts `roots`.
///
/// # Errors
/// A sentence if this build offers no version of TLS.
pub fn client_config(roots: RootCertStore) -> Result<ClientConfig, String> {
    Ok(ClientConfig::builder_with_provider(default_provider().into())
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be used: {error}"))?
        .with_root_certificates(roots)
        .with_no_client_auth())
}
