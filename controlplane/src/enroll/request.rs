//! Requests, from bytes to values: whatever is malformed is refused here, by the name of its field.

use std::net::SocketAddr;

use tonic::Status;
use wattle_certs::CsrKey;
use wattle_model::{Endpoint, Fingerprint, InvalidId, NodeName, PublicKey, TokenId, TokenSecret};
use wattle_proto::{
    Invalid as _, InvalidField,
    enroll::EnrollRequest,
    entry::{self, MAX_ENDPOINTS},
};

use crate::nodes::{Enrolment, observed_endpoint};

/// The answer to a malformed request.
pub(super) fn invalid(error: InvalidField) -> Status {
    Status::invalid_argument(error.to_string())
}

/// Reads a signing request.
pub(super) fn csr(der: &[u8]) -> Result<CsrKey, InvalidField> {
    CsrKey::from_der(der).field("csr")
}

/// Reads an enrolment that came from `peer`; `root` will sign.
pub(super) fn enrolment(
    request: &EnrollRequest,
    peer: Option<SocketAddr>,
    root: Fingerprint,
) -> Result<(CsrKey, Enrolment), InvalidField> {
    let token = TokenId::try_from(request.token_id.as_ref()).field("token_id")?;
    let secret = secret(&request.token_secret).field("token_secret")?;
    let public_key =
        PublicKey::try_from(request.wireguard_public_key.as_ref()).field("wireguard_public_key")?;
    let name: Option<NodeName> =
        (!request.name.is_empty()).then(|| request.name.parse()).transpose().field("name")?;
    if request.endpoints.len() > MAX_ENDPOINTS {
        let got = request.endpoints.len();
        return Err(format!("at most {MAX_ENDPOINTS}, got {got}")).field("endpoints");
    }
    let endpoints = entry::endpoints(&request.endpoints).field("endpoints")?;
    // Last, because it alone costs something.
    let key = csr(&request.csr)?;
    let observed = peer
        .zip(listen_port(&endpoints))
        .and_then(|(peer, port)| observed_endpoint(peer.ip(), port));
    let fingerprint = key.fingerprint();
    let wish =
        Enrolment { token, secret, fingerprint, public_key, name, endpoints, observed, root };
    Ok((key, wish))
}

fn secret(bytes: &[u8]) -> Result<TokenSecret, InvalidId> {
    let wrong = |_| InvalidId::Length { expected: 32, got: bytes.len() };
    bytes.try_into().map(TokenSecret::new).map_err(wrong)
}

/// The port that its WireGuard listens on, as far as its endpoints agree. Where they don't, its
/// first report says it.
fn listen_port(endpoints: &[Endpoint]) -> Option<u16> {
    let mut ports = endpoints.iter().map(|endpoint| endpoint.socket_addr().port());
    let first = ports.next()?;
    ports.all(|port| port == first).then_some(first)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use wattle_certs::KeyPair;

    use super::*;

    fn good() -> EnrollRequest {
        EnrollRequest {
            token_id: Bytes::from_static(&[1; 8]),
            token_secret: Bytes::from_static(&[2; 32]),
            csr: KeyPair::generate().csr().into(),
            wireguard_public_key: Bytes::from_static(&[3; 32]),
            name: "web-1".into(),
            endpoints: vec![endpoint("192.0.2.1:51820").to_bytes().into()],
            validate_only: false,
        }
    }

    fn endpoint(text: &str) -> Endpoint {
        Endpoint::new(text.parse().unwrap()).unwrap()
    }

    #[test]
    fn each_malformed_field_is_named() {
        type Spoil = fn(&mut EnrollRequest);
        let cases: [(&str, Spoil); 9] = [
            ("token_id: expected 8 bytes, got 7", |r| r.token_id.truncate(7)),
            ("token_secret: expected 32 bytes, got 0", |r| r.token_secret.clear()),
            ("csr: not a signing request", |r| r.csr.truncate(40)),
            ("wireguard_public_key: a WireGuard key has 32 bytes", |r| {
                r.wireguard_public_key = Bytes::from_static(&[3; 33]);
            }),
            ("wireguard_public_key: a WireGuard key of zeros", |r| {
                r.wireguard_public_key = Bytes::from_static(&[0; 32]);
            }),
            ("name: ", |r| r.name = "Not A Name".into()),
            ("endpoints: an endpoint has 6 or 18 bytes", |r| r.endpoints[0].truncate(5)),
            ("endpoints: 0.0.0.0:1", |r| r.endpoints[0] = Bytes::from_static(&[0, 0, 0, 0, 0, 1])),
            ("endpoints: at most 8, got 9", |r| r.endpoints = vec![r.endpoints[0].clone(); 9]),
        ];
        let root = Fingerprint::new([9; 32]);
        assert!(enrolment(&good(), None, root).is_ok());
        for (said, spoil) in cases {
            let mut request = good();
            spoil(&mut request);
            let error = enrolment(&request, None, root).unwrap_err().to_string();
            assert!(error.starts_with(said), "{error}");
            assert!(!error.contains("2, 2"), "a secret: {error}");
        }
    }

    #[test]
    fn the_observed_endpoint_has_the_port_that_all_agree_on() {
        let observed = |peer: &str, endpoints: &[&str]| {
            let endpoints = endpoints.iter().map(|text| endpoint(text).to_bytes().into());
            let request = EnrollRequest { endpoints: endpoints.collect(), ..good() };
            enrolment(&request, Some(peer.parse().unwrap()), Fingerprint::new([9; 32]))
                .unwrap()
                .1
                .observed
        };
        let seen = Some(endpoint("198.51.100.7:51820"));
        assert_eq!(observed("198.51.100.7:999", &["192.0.2.1:51820", "192.0.2.2:51820"]), seen);
        assert_eq!(observed("[::ffff:198.51.100.7]:999", &["192.0.2.1:51820"]), seen);
        assert_eq!(observed("198.51.100.7:999", &["192.0.2.1:1", "192.0.2.2:2"]), None);
        assert_eq!(observed("198.51.100.7:999", &[]), None);
        assert_eq!(observed("127.0.0.1:999", &["192.0.2.1:51820"]), None);
    }
}
