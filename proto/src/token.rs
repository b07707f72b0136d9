//! Who a peer is: JSON Web Tokens, signed with a shared secret (HS256) or checked against a public
//! key (EdDSA).
//!
//! One secret serves the whole family of processes; the audience keeps a user's token from opening
//! an admin's door.

use std::fmt;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use crate::UserId;

/// Bytes that a shared secret must have at least: HS256 is as strong as its key is long, up to 32.
pub const SECRET_BYTES_MIN: usize = 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Log in as the user that the subject names.
    User,
    /// Call the HTTP control surface of any process.
    Admin,
    Report,
}

impl Audience {
    /// The `aud` claim.
    pub const fn as_str(self) -> &'static str {
        match self {
            Audience::User => "hongbao-user",
            Audience::Admin => "hongbao-admin",
            Audience::Report => "hongbao-report",
        }
    }
}

/// A shared signing secret. It never shows itself: `Debug` prints no byte of it.
#[derive(Clone)]
pub struct Secret(Box<[u8]>);

impl Secret {
    /// Takes the secret from its text, as read from a file or the environment; surrounding white
    /// space is not part of it.
    pub fn from_text(text: &str) -> Result<Self, TokenError> {
        let bytes = text.trim().as_bytes();
        if bytes.len() < SECRET_BYTES_MIN {
            return Err(TokenError::SecretTooShort { bytes: bytes.len() });
        }
        Ok(Self(bytes.into()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Why a token is not accepted, or cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("token is malformed or wrongly signed")]
    Invalid,
    #[error("token has expired")]
    Expired,
    #[error("token is not meant for this use")]
    Foreign,
    #[error("secret has {bytes} bytes; at least {SECRET_BYTES_MIN} are needed (make one with `hongbao-server secret`)")]
    SecretTooShort { bytes: usize },
    #[error("public key is not an Ed25519 key in PEM: {0}")]
    PublicKey(String),
    #[error("token cannot be signed: {0}")]
    Signing(String),
}

#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    sub: String,
    aud: String,
    exp: u64,
    iat: u64,
}

/// Makes tokens with the shared secret.
pub struct Signer {
    key: EncodingKey,
    header: Header,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer(..)")
    }
}

impl Signer {
    /// Signs with HS256.
    pub fn new(secret: &Secret) -> Self {
        Self { key: EncodingKey::from_secret(&secret.0), header: Header::new(Algorithm::HS256) }
    }

    /// A token for `subject`, good from `now` for `ttl`, both in seconds (`now`: Unix time).
    pub fn sign(&self, subject: &str, audience: Audience, now: u64, ttl: u64) -> Result<String, TokenError> {
        let claims = Claims { sub: subject.to_owned(), aud: audience.as_str().to_owned(), exp: now + ttl, iat: now };
        jsonwebtoken::encode(&self.header, &claims, &self.key).map_err(|error| TokenError::Signing(error.to_string()))
    }

    /// A user's login token.
    pub fn sign_user(&self, user: UserId, now: u64, ttl: u64) -> Result<String, TokenError> {
        self.sign(&user.to_string(), Audience::User, now, ttl)
    }
}

/// Checks tokens of one audience.
#[derive(Clone)]
pub struct Verifier {
    key: DecodingKey,
    validation: Validation,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("algorithms", &self.validation.algorithms).finish_non_exhaustive()
    }
}

impl Verifier {
    /// Accepts HS256 tokens signed with the shared secret, and no other algorithm.
    pub fn hs256(secret: &Secret, audience: Audience) -> Self {
        Self::new(DecodingKey::from_secret(&secret.0), Algorithm::HS256, audience)
    }

    /// Accepts EdDSA tokens that verify with an Ed25519 public key (PEM), and no other algorithm.
    pub fn eddsa(public_key_pem: &[u8], audience: Audience) -> Result<Self, TokenError> {
        let key = DecodingKey::from_ed_pem(public_key_pem).map_err(|error| TokenError::PublicKey(error.to_string()))?;
        Ok(Self::new(key, Algorithm::EdDSA, audience))
    }

    fn new(key: DecodingKey, algorithm: Algorithm, audience: Audience) -> Self {
        let mut validation = Validation::new(algorithm);
        validation.set_audience(&[audience.as_str()]);
        validation.set_required_spec_claims(&["exp", "aud", "sub"]);
        // The clocks of the fleet are synchronised and checked; a token past its expiry is past it.
        validation.leeway = 0;
        Self { key, validation }
    }

    /// The subject of a good token.
    pub fn verify(&self, token: &str) -> Result<String, TokenError> {
        self.verify_until(token).map(|(subject, _)| subject)
    }

    /// The subject of a good token, and the Unix second at which it expires.
    pub fn verify_until(&self, token: &str) -> Result<(String, u64), TokenError> {
        match jsonwebtoken::decode::<Claims>(token, &self.key, &self.validation) {
            Ok(data) => Ok((data.claims.sub, data.claims.exp)),
            Err(error) => Err(match error.kind() {
                ErrorKind::ExpiredSignature => TokenError::Expired,
                ErrorKind::InvalidAudience | ErrorKind::MissingRequiredClaim(_) => TokenError::Foreign,
                _ => TokenError::Invalid,
            }),
        }
    }

    /// The user that a good login token names.
    pub fn verify_user(&self, token: &str) -> Result<UserId, TokenError> {
        let subject = self.verify(token)?;
        subject.parse::<u64>().ok().and_then(|id| UserId::new(id).ok()).ok_or(TokenError::Foreign)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 4_000_000_000;

    fn secret(text: &str) -> Secret {
        Secret::from_text(text).unwrap()
    }

    fn ours() -> Secret {
        secret("0123456789abcdef0123456789abcdef")
    }

    #[test]
    fn a_user_token_names_its_user() {
        let user = UserId::new(UserId::MAX).unwrap();
        let token = Signer::new(&ours()).sign_user(user, NOW, 60).unwrap();
        assert_eq!(Verifier::hs256(&ours(), Audience::User).verify_user(&token), Ok(user));
        assert_eq!(Verifier::hs256(&ours(), Audience::User).verify_until(&token), Ok((user.to_string(), NOW + 60)));
    }

    #[test]
    fn each_bad_token_is_refused_for_its_own_reason() {
        let verifier = Verifier::hs256(&ours(), Audience::User);
        let signer = Signer::new(&ours());
        let refused = |token: &str| verifier.verify_user(token).unwrap_err();

        assert_eq!(refused("garbage"), TokenError::Invalid);
        assert_eq!(refused(""), TokenError::Invalid);
        let foreign = Signer::new(&secret("another secret that is long enough!!"));
        assert_eq!(refused(&foreign.sign("1", Audience::User, NOW, 60).unwrap()), TokenError::Invalid);
        assert_eq!(refused(&signer.sign("1", Audience::User, 1_000, 60).unwrap()), TokenError::Expired);
        assert_eq!(refused(&signer.sign("1", Audience::Admin, NOW, 60).unwrap()), TokenError::Foreign);
        for subject in ["0", "-1", "nobody", "9007199254740992", "18446744073709551616"] {
            assert_eq!(
                refused(&signer.sign(subject, Audience::User, NOW, 60).unwrap()),
                TokenError::Foreign,
                "{subject}"
            );
        }
    }

    #[test]
    fn an_unsigned_token_is_refused() {
        // {"alg":"none"} . {"sub":"1","aud":"hongbao-user","exp":9999999999} . no signature
        let token = "eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIiwiYXVkIjoiaG9uZ2Jhby11c2VyIiwiZXhwIjo5OTk5OTk5OTk5fQ.";
        assert_eq!(Verifier::hs256(&ours(), Audience::User).verify_user(token), Err(TokenError::Invalid));
    }

    #[test]
    fn a_public_key_takes_eddsa_tokens_and_no_hs256_ones() {
        const PRIVATE: &[u8] = include_bytes!("../tests/ed25519-private.pem");
        const PUBLIC: &[u8] = include_bytes!("../tests/ed25519-public.pem");
        let verifier = Verifier::eddsa(PUBLIC, Audience::User).unwrap();
        let claims = Claims { sub: "7".into(), aud: Audience::User.as_str().into(), exp: NOW, iat: 1 };
        let key = EncodingKey::from_ed_pem(PRIVATE).unwrap();
        let token = jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), &claims, &key).unwrap();
        assert_eq!(verifier.verify_user(&token).map(UserId::get), Ok(7));

        let hs256 = Signer::new(&ours()).sign("7", Audience::User, NOW, 60).unwrap();
        assert_eq!(verifier.verify_user(&hs256), Err(TokenError::Invalid));
        assert!(matches!(Verifier::eddsa(b"not a key", Audience::User), Err(TokenError::PublicKey(_))));
    }

    #[test]
    fn a_secret_shows_nothing_and_is_long_enough() {
        assert_eq!(format!("{:?}", ours()), "Secret(..)");
        assert_eq!(Secret::from_text(" short\n").unwrap_err(), TokenError::SecretTooShort { bytes: 5 });
    }
}
