//! Who a peer is: JSON Web Tokens, signed with a shared secret (HS256) or checked against a public
//! key (EdDSA).
//!
//! One secret serves the whole family of processes; the audience keeps a user's token from opening
//! an admin's door.

use std::fmt;
use std::time::SystemTime;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::Deserialize;
use serde_json::Value;

use crate::UserId;

/// Bytes that a shared secret must have at least: HS256 is as strong as its key is long, up to 32.
pub const SECRET_BYTES_MIN: usize = 32;

/// How far an issuer's clock may differ from ours unless it is set otherwise, seconds.
pub const LEEWAY_SECONDS: u64 = 5;

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

/// Why a key or a token cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("secret has {bytes} bytes; at least {SECRET_BYTES_MIN} are needed (make one with `hongbao-server secret`)")]
    SecretTooShort { bytes: usize },
    #[error("public key is not an Ed25519 key in PEM: {0}")]
    PublicKey(String),
    #[error("token cannot be signed: {0}")]
    Signing(String),
}

/// Why a token is refused. The message names the claim: it is for logs and for operators.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefusal {
    #[error("the token is malformed")]
    Malformed,
    #[error("the token's alg is not the one that is accepted here")]
    Algorithm,
    /// RFC 7515, 4.1.11: an extension that must be understood, and is not.
    #[error("the token's crit names extensions that are not known here")]
    Critical,
    #[error("the token is wrongly signed")]
    Signature,
    #[error("the token's exp is missing or is not a number")]
    NoExpiry,
    #[error("the token has expired: its exp is past")]
    Expired,
    #[error("the token's nbf is not a number")]
    NotBefore,
    #[error("the token is not valid yet: its nbf is to come")]
    NotYetValid,
    #[error("the token's iat is not a number")]
    IssuedAt,
    #[error("the token is not meant for this use: its aud lacks it")]
    Audience,
    #[error("the token's sub is missing or is not a text")]
    NoSubject,
    #[error("the token's sub is not a user's id: a whole number from 1 to 2^53 - 1, without leading zeros")]
    Subject,
}

/// What is read of a token: whatever RFC 7519 allows, to be judged claim by claim. A claim that
/// stands twice makes the token malformed.
#[derive(Deserialize)]
struct Claims {
    sub: Option<Value>,
    aud: Option<Value>,
    exp: Option<Value>,
    nbf: Option<Value>,
    iat: Option<Value>,
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
        let claims = serde_json::json!({"sub": subject, "aud": audience.as_str(), "exp": now + ttl, "iat": now});
        jsonwebtoken::encode(&self.header, &claims, &self.key).map_err(|error| TokenError::Signing(error.to_string()))
    }

    /// A user's login token.
    pub fn sign_user(&self, user: UserId, now: u64, ttl: u64) -> Result<String, TokenError> {
        self.sign(&user.to_string(), Audience::User, now, ttl)
    }
}

/// What a good token grants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    pub subject: String,
    /// Unix second from which the token is refused, the leeway included.
    pub expires_at: u64,
}

/// Checks tokens of one audience.
#[derive(Clone)]
pub struct Verifier {
    key: DecodingKey,
    validation: Validation,
    audience: Audience,
    leeway: u64,
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
        // The library checks form, algorithm and signature. The claims are judged here, so that a
        // refusal can name the one that it is about.
        let mut validation = Validation::new(algorithm);
        validation.validate_exp = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        Self { key, validation, audience, leeway: LEEWAY_SECONDS }
    }

    /// Forgives a clock that differs from the issuer's by up to `seconds`.
    pub fn with_leeway(self, seconds: u64) -> Self {
        Self { leeway: seconds, ..self }
    }

    /// What a token grants now.
    pub fn verify(&self, token: &str) -> Result<Grant, TokenRefusal> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.verify_at(token, now.as_secs())
    }

    /// What a token grants at a Unix second. By RFC 7519, 4.1: `exp`, `nbf` and `iat` are numbers,
    /// whole or not, `aud` is a text or a list of them, and what is not known is passed over.
    pub fn verify_at(&self, token: &str, now: u64) -> Result<Grant, TokenRefusal> {
        let token =
            jsonwebtoken::decode::<Claims>(token, &self.key, &self.validation).map_err(|error| match error.kind() {
                ErrorKind::InvalidSignature => TokenRefusal::Signature,
                ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName | ErrorKind::UnsupportedAlgorithm => {
                    TokenRefusal::Algorithm
                }
                _ => TokenRefusal::Malformed,
            })?;
        if token.header.crit.is_some() {
            return Err(TokenRefusal::Critical);
        }
        let Claims { sub, aud, exp, nbf, iat } = token.claims;
        let exp = exp.and_then(|exp| seconds(&exp)).ok_or(TokenRefusal::NoExpiry)?;
        let expires_at = exp.saturating_add(self.leeway);
        if now >= expires_at {
            return Err(TokenRefusal::Expired);
        }
        if let Some(nbf) = nbf
            && seconds(&nbf).ok_or(TokenRefusal::NotBefore)? > now.saturating_add(self.leeway)
        {
            return Err(TokenRefusal::NotYetValid);
        }
        if iat.is_some_and(|iat| seconds(&iat).is_none()) {
            return Err(TokenRefusal::IssuedAt);
        }
        let ours = |one: &Value| one.as_str() == Some(self.audience.as_str());
        if !aud.is_some_and(|aud| ours(&aud) || aud.as_array().is_some_and(|all| all.iter().any(ours))) {
            return Err(TokenRefusal::Audience);
        }
        match sub {
            Some(Value::String(subject)) => Ok(Grant { subject, expires_at }),
            _ => Err(TokenRefusal::NoSubject),
        }
    }

    /// The user that a good login token names, and until when (see [`Grant`]). A user's id has one
    /// spelling: `007` is nobody.
    pub fn verify_user(&self, token: &str) -> Result<(UserId, u64), TokenRefusal> {
        let Grant { subject, expires_at } = self.verify(token)?;
        let user = subject.parse().ok().and_then(|id| UserId::new(id).ok()).ok_or(TokenRefusal::Subject)?;
        if user.to_string() == subject { Ok((user, expires_at)) } else { Err(TokenRefusal::Subject) }
    }
}

/// A NumericDate as a whole second; one that is not whole counts as the second that it lies in.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates: before 1970 is past")]
fn seconds(date: &Value) -> Option<u64> {
    date.as_u64().or_else(|| date.as_f64().map(|seconds| seconds as u64))
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::json;

    use super::*;

    const NOW: u64 = 4_000_000_000;

    fn secret(text: &str) -> Secret {
        Secret::from_text(text).unwrap()
    }

    fn ours() -> Secret {
        secret("0123456789abcdef0123456789abcdef")
    }

    fn signed(claims: &Value) -> String {
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_secret(&ours().0)).unwrap()
    }

    fn users() -> Verifier {
        Verifier::hs256(&ours(), Audience::User)
    }

    fn claims(change: Value) -> Value {
        let mut claims = json!({"sub": "7", "aud": "hongbao-user", "exp": NOW + 60});
        for (name, value) in change.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims
    }

    #[test]
    fn a_user_token_names_its_user() {
        let user = UserId::new(UserId::MAX).unwrap();
        let token = Signer::new(&ours()).sign_user(user, NOW, 60).unwrap();
        assert_eq!(users().verify_user(&token), Ok((user, NOW + 60 + LEEWAY_SECONDS)));
    }

    #[test]
    fn tokens_of_other_issuers_are_taken() {
        for change in [
            json!({}),
            json!({"aud": ["other", "hongbao-user"]}),
            json!({"aud": ["hongbao-user"], "iat": NOW}),
            json!({"iss": "x", "jti": "y", "iat": NOW + 3600, "scope": {"a": [1]}}),
            json!({"exp": NOW as f64 + 60.5, "nbf": NOW as f64 - 0.5, "iat": 1.5e9}),
            json!({"nbf": null, "iat": null}),
        ] {
            let grant = users().verify_at(&signed(&claims(change.clone())), NOW);
            let expires_at = NOW + 60 + LEEWAY_SECONDS;
            assert_eq!(grant, Ok(Grant { subject: "7".into(), expires_at }), "{change}");
        }
    }

    #[test]
    fn each_claim_is_refused_for_its_own_reason() {
        for (change, refusal) in [
            (json!({"exp": null}), TokenRefusal::NoExpiry),
            (json!({"exp": "4000000060"}), TokenRefusal::NoExpiry),
            (json!({"exp": NOW - LEEWAY_SECONDS}), TokenRefusal::Expired),
            (json!({"exp": -1}), TokenRefusal::Expired),
            (json!({"nbf": NOW + LEEWAY_SECONDS + 1}), TokenRefusal::NotYetValid),
            (json!({"nbf": "x"}), TokenRefusal::NotBefore),
            (json!({"iat": "x"}), TokenRefusal::IssuedAt),
            (json!({"aud": null}), TokenRefusal::Audience),
            (json!({"aud": []}), TokenRefusal::Audience),
            (json!({"aud": "hongbao-admin"}), TokenRefusal::Audience),
            (json!({"aud": {"hongbao-user": 1}}), TokenRefusal::Audience),
            (json!({"sub": null}), TokenRefusal::NoSubject),
            (json!({"sub": 7}), TokenRefusal::NoSubject),
        ] {
            assert_eq!(users().verify_at(&signed(&claims(change.clone())), NOW), Err(refusal), "{change}");
        }
        let foreign = Signer::new(&secret("another secret that is long enough!!"));
        let foreign = foreign.sign("1", Audience::User, NOW, 60).unwrap();
        assert_eq!(users().verify_at(&foreign, NOW), Err(TokenRefusal::Signature));
        for garbage in ["", "garbage", "a.b.c", "a.b.c.d"] {
            assert_eq!(users().verify_at(garbage, NOW), Err(TokenRefusal::Malformed), "{garbage}");
        }
    }

    #[test]
    fn the_leeway_is_a_setting() {
        let ended = signed(&claims(json!({"exp": NOW - 10})));
        let early = signed(&claims(json!({"nbf": NOW + 10})));
        for token in [&ended, &early] {
            assert!(users().with_leeway(9).verify_at(token, NOW).is_err());
            assert!(users().with_leeway(11).verify_at(token, NOW).is_ok());
        }
        assert_eq!(users().with_leeway(10).verify_at(&ended, NOW), Err(TokenRefusal::Expired), "at exp it is over");
    }

    #[test]
    fn a_user_has_one_spelling() {
        let spelt = |subject: &str| users().verify_user(&signed(&claims(json!({ "sub": subject }))));
        assert!(spelt("7").is_ok());
        for subject in [
            "",
            "0",
            "-7",
            "+7",
            "007",
            " 7",
            "7 ",
            "7.0",
            "7e0",
            "٧",
            "nobody",
            "9007199254740992",
            "18446744073709551616",
        ] {
            assert_eq!(spelt(subject), Err(TokenRefusal::Subject), "{subject}");
        }
    }

    /// A token of good claims under a header and a signature of its own.
    fn assembled(header: &Value, signature: &str) -> String {
        let claims = signed(&claims(json!({})));
        let header = URL_SAFE_NO_PAD.encode(header.to_string());
        format!("{header}.{}.{signature}", claims.split('.').nth(1).unwrap())
    }

    #[test]
    fn an_unsigned_token_is_refused() {
        let good = signed(&claims(json!({})));
        assert!(users().verify_at(&good, NOW).is_ok());
        let (message, signature) = good.rsplit_once('.').unwrap();
        let none = assembled(&json!({"alg": "none"}), "");
        assert_eq!(none.split('.').nth(1), message.split('.').nth(1), "the claims are the good token's");
        for token in [none, assembled(&json!({"alg": "none"}), signature), assembled(&json!({}), signature)] {
            assert_eq!(users().verify_at(&token, NOW), Err(TokenRefusal::Malformed));
        }
        assert_eq!(users().verify_at(&format!("{message}."), NOW), Err(TokenRefusal::Signature));
        assert_eq!(users().verify_at(message, NOW), Err(TokenRefusal::Malformed));
    }

    #[test]
    fn an_extension_that_must_be_understood_is_not() {
        let header = Header { crit: Some(vec!["b64".to_owned()]), ..Header::new(Algorithm::HS256) };
        let token = jsonwebtoken::encode(&header, &claims(json!({})), &EncodingKey::from_secret(&ours().0)).unwrap();
        assert_eq!(users().verify_at(&token, NOW), Err(TokenRefusal::Critical));
    }

    #[test]
    fn a_public_key_takes_eddsa_tokens_and_no_hs256_ones() {
        const PRIVATE: &[u8] = include_bytes!("../tests/ed25519-private.pem");
        const PUBLIC: &[u8] = include_bytes!("../tests/ed25519-public.pem");
        let verifier = Verifier::eddsa(PUBLIC, Audience::User).unwrap();
        let key = EncodingKey::from_ed_pem(PRIVATE).unwrap();
        let token = jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), &claims(json!({})), &key).unwrap();
        assert_eq!(verifier.verify_user(&token).map(|(user, _)| user.get()), Ok(7));

        assert_eq!(verifier.verify_user(&signed(&claims(json!({})))), Err(TokenRefusal::Algorithm));
        assert!(matches!(Verifier::eddsa(b"not a key", Audience::User), Err(TokenError::PublicKey(_))));
    }

    #[test]
    fn a_secret_shows_nothing_and_is_long_enough() {
        assert_eq!(format!("{:?}", ours()), "Secret(..)");
        assert_eq!(Secret::from_text(" short\n").unwrap_err(), TokenError::SecretTooShort { bytes: 5 });
    }
}
