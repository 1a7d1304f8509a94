//! JWTs, as an app signs them.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac::{self, HMAC_SHA256};
use serde_json::Value;

/// A JWT with this header and these claims.
pub fn signed(header: &str, claims: &str, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = URL_SAFE_NO_PAD.encode(sign(message.as_bytes()));
    format!("{message}.{signature}")
}

/// The HMAC of a message with a secret.
pub fn mac(algorithm: hmac::Algorithm, secret: impl AsRef<[u8]>) -> impl FnOnce(&[u8]) -> Vec<u8> {
    let key = hmac::Key::new(algorithm, secret.as_ref());
    move |message| hmac::sign(&key, message).as_ref().to_vec()
}

pub fn hs256(claims: &Value, secret: impl AsRef<[u8]>) -> String {
    signed(r#"{"typ":"JWT","alg":"HS256"}"#, &claims.to_string(), mac(HMAC_SHA256, secret))
}
