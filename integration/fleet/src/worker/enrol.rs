//! A machine becomes a node: its own keys, a signing request, a connection that trusts nothing but
//! the token's pin, one Enroll.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use prost::Message as _;
use rustls::pki_types::CertificateDer;
use tokio::select;
use wattle_certs::{KeyPair, TrustDomain};
use wattle_model::{Endpoint, JoinToken};
use wattle_proto::enroll::{EnrollRequest, EnrollResponse};

use super::{
    socket::{self, Target},
    wire::{self, Inbox},
    world::World,
};

const ENROLL: &str = "https://control-plane.wattle/wattle.enroll.v1.EnrollmentService/Enroll";
/// gRPC's UNAVAILABLE and RESOURCE_EXHAUSTED: come again.
const COME_AGAIN: [&str; 2] = ["14", "8"];

/// A token, and TLS that trusts what it pins.
#[derive(Debug)]
pub(super) struct Door {
    token: JoinToken,
    /// Where replicas are, by the token.
    targets: Vec<Target>,
}

/// Keys of a machine that isn't a node yet.
pub(super) struct Keys {
    tls: KeyPair,
    wireguard: [u8; 32],
}

/// How asking ended.
pub(super) enum Asked {
    /// The machine is a node; this is how it connects, and where.
    Enrolled(Vec<Target>),
    /// Not now.
    ComeAgain(String),
}

impl Door {
    pub(super) async fn new(token: &str) -> Result<Self> {
        let token: JoinToken = token.parse()?;
        let tls = Arc::new(wattle_certs::pinned_client_config(token.pin)?);
        let mut targets = Vec::new();
        for address in &token.addresses {
            let mut found =
                tokio::net::lookup_host(address).await.with_context(|| address.clone())?;
            let address = found.next().with_context(|| format!("{address}: no such host"))?;
            targets.push(Target { address, tls: tls.clone() });
        }
        ensure!(!targets.is_empty(), "the token names no address");
        Ok(Self { token, targets })
    }

    /// The replica that machine `number` asks.
    fn target(&self, number: usize) -> &Target {
        &self.targets[number % self.targets.len()]
    }
}

impl Keys {
    pub(super) fn generate() -> Self {
        Self { tls: KeyPair::generate(), wireguard: rand::random() }
    }
}

/// Where machine `number` says that it can be reached: nobody calls there.
pub(super) fn endpoint(number: usize) -> SocketAddr {
    // The range for benchmarks, RFC 2544.
    let ip = u32::from(Ipv4Addr::new(198, 18, 0, 0)) + (number as u32 & 0xffff);
    SocketAddr::new(Ipv4Addr::from(ip).into(), 51820)
}

/// An endpoint as the wire has it.
pub(super) fn endpoint_bytes(endpoint: SocketAddr) -> Result<Bytes> {
    Ok(Endpoint::new(endpoint)?.to_bytes().into())
}

/// Enrols machine `number`.
pub(super) async fn enrol(door: &Door, keys: &Keys, number: usize, world: &World) -> Result<Asked> {
    let request = EnrollRequest {
        token_id: Bytes::copy_from_slice(door.token.id.as_bytes()),
        token_secret: Bytes::copy_from_slice(door.token.secret.expose_bytes()),
        csr: keys.tls.csr().into(),
        wireguard_public_key: Bytes::copy_from_slice(&keys.wireguard),
        name: String::new(),
        endpoints: vec![endpoint_bytes(endpoint(number))?],
        validate_only: false,
    };
    let called = match call(door.target(number), number, &request, world).await {
        Ok(called) => called,
        // The machine asks again with the same keys: it is one node whatever was lost.
        Err(error) => return Ok(Asked::ComeAgain(format!("{error:#}"))),
    };
    let (bytes, status) = called;
    match status.get("grpc-status").and_then(|status| status.to_str().ok()).unwrap_or("none") {
        "0" => {}
        status if COME_AGAIN.contains(&status) => {
            return Ok(Asked::ComeAgain(format!("enrolment: gRPC status {status}")));
        }
        code => {
            let message = status.get("grpc-message").and_then(|text| text.to_str().ok());
            bail!("the control plane refuses the enrolment ({code}): {}", message.unwrap_or("-"));
        }
    }
    let answer = EnrollResponse::decode(bytes.context("an empty answer")?)?;
    let tls = Arc::new(tls(keys, answer)?);
    let own = |target: &Target| Target { address: target.address, tls: tls.clone() };
    Ok(Asked::Enrolled(door.targets.iter().map(own).collect()))
}

/// TLS as the node that the answer made.
fn tls(keys: &Keys, answer: EnrollResponse) -> Result<rustls::ClientConfig> {
    let credential = answer.credential.context("an answer without a certificate")?;
    let certificate = |der: &Bytes| CertificateDer::from(der.to_vec());
    let roots: Vec<_> = credential.ca_certificates.iter().map(certificate).collect();
    let trust_domain: TrustDomain = credential.trust_domain.parse()?;
    let own = (vec![certificate(&credential.certificate)], &keys.tls);
    Ok(wattle_certs::client_config(&roots, Some(own), Some(&trust_domain))?)
}

/// One unary call on a connection of its own: the answer's message and the trailers.
async fn call(
    target: &Target,
    number: usize,
    request: &EnrollRequest,
    world: &World,
) -> Result<(Option<Bytes>, HeaderMap)> {
    let tls = socket::connect(target, number, &world.counts.other_bytes).await?;
    let (send, mut connection) = socket::http(tls, None).await?;
    let exchange = async {
        let head = grpc(ENROLL)?;
        let (answer, mut body) = send.ready().await?.send_request(head, false)?;
        body.send_data(wire::framed(request), true)?;
        let (head, mut body) = answer.await?.into_parts();
        let mut inbox = Inbox::default();
        let mut message = None;
        while let Some(data) = body.data().await {
            let data = data?;
            body.flow_control().release_capacity(data.len())?;
            inbox.push(data);
            message = inbox.next()?.or(message);
        }
        let trailers = body.trailers().await?;
        Ok((message, trailers.unwrap_or(head.headers)))
    };
    select! {
        answer = exchange => answer,
        end = &mut connection => {
            end?;
            bail!("the connection was closed");
        }
    }
}

/// The head of a gRPC call.
pub(super) fn grpc(uri: &str) -> Result<Request<()>> {
    Ok(Request::builder()
        .method(Method::POST)
        .uri(uri)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())?)
}
