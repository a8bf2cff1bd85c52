//! The stream's edge, inwards: what an agent sends becomes checked values here, or an error that
//! names the field. Nothing behind this file sees a message.

use std::time::Duration;

use bytes::Bytes;
use wattle_model::{Digest, Endpoint, Epoch, Generation, InstanceId, NodeId, PublicKey, Revision};
use wattle_proto::{
    Invalid, InvalidField,
    entry::{self, MAX_ENDPOINTS},
    sync::{self, sync_request::Message},
};

use super::inspections::Tunnel;

/// The protocol version spoken here.
pub(super) const PROTOCOL_VERSION: u32 = 1;
/// Rejections kept of one ack; an agent that has more has one problem, not so many.
pub(super) const MAX_REJECTED: usize = 64;
/// Observations in one message.
pub(super) const MAX_OBSERVATIONS: usize = 64;
/// Characters kept of a text that an agent sends for operators to read.
const MAX_TEXT: usize = 200;

/// Anything an agent says.
#[derive(Debug)]
pub(super) enum Request {
    Hello(Hello),
    Ack(Ack),
    Report(Report),
    Resync(Revision),
    Inspected(Inspected),
    Observations(Vec<Observation>),
    /// A key that it has made and doesn't use yet.
    NextKey(PublicKey),
}

/// What the agent has.
#[derive(Debug, Clone)]
pub(super) struct Hello {
    pub(super) instance: InstanceId,
    /// `None`: it has never applied a batch.
    pub(super) have: Option<Have>,
    /// SHA-256 of the last config it applied.
    pub(super) config_hash: Option<[u8; 32]>,
    pub(super) accept_stale: bool,
    pub(super) agent_version: String,
    pub(super) stream: u64,
    /// The key that its device has, where it says so.
    pub(super) public_key: Option<PublicKey>,
    /// The generation of its network's secret that it goes by.
    pub(super) secret_generation: Generation,
}

/// The set that the agent holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Have {
    pub(super) epoch: Epoch,
    pub(super) revision: Revision,
    pub(super) digest: Digest,
}

/// The agent has applied a commit, or verified its data plane.
#[derive(Debug, Clone)]
pub(super) struct Ack {
    pub(super) revision: Revision,
    pub(super) digest: Digest,
    pub(super) apply: Duration,
    pub(super) rejected: Vec<(NodeId, String)>,
    pub(super) verified: Revision,
}

/// What the agent knows of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) endpoints: Vec<Endpoint>,
    pub(super) listen_port: u16,
    pub(super) data_plane: Option<DataPlane>,
    /// The newest of its network's secrets that it holds.
    pub(super) secret_generation: Generation,
}

/// The answer to a question about a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Inspected {
    pub(super) query: u64,
    pub(super) tunnel: Tunnel,
}

/// Where an agent's WireGuard sees a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Observation {
    pub(super) peer: NodeId,
    pub(super) endpoint: Endpoint,
    /// How long ago the last handshake was.
    pub(super) handshake: Duration,
}

/// What moves an agent's packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataPlane {
    /// Kernel WireGuard.
    Kernel,
    /// A userspace device inside the agent.
    Userspace,
}

impl TryFrom<sync::SyncRequest> for Request {
    type Error = InvalidField;

    fn try_from(request: sync::SyncRequest) -> Result<Self, InvalidField> {
        match request.message.field("message")? {
            Message::Hello(hello) => Hello::try_from(hello).map(Self::Hello),
            Message::Ack(ack) => Ack::try_from(ack).map(Self::Ack),
            Message::Report(report) => Report::try_from(report).map(Self::Report),
            Message::Resync(resync) => Ok(Self::Resync(Revision(resync.revision))),
            Message::Inspected(inspected) => Inspected::try_from(inspected).map(Self::Inspected),
            Message::Observations(seen) => observations(&seen).map(Self::Observations),
            Message::NextKey(next) => PublicKey::try_from(next.public_key.as_ref())
                .field("next_key.public_key")
                .map(Self::NextKey),
        }
    }
}

impl TryFrom<sync::Hello> for Hello {
    type Error = InvalidField;

    fn try_from(hello: sync::Hello) -> Result<Self, InvalidField> {
        if hello.protocol_version < PROTOCOL_VERSION {
            return Err(format!("at least {PROTOCOL_VERSION}, got {}", hello.protocol_version))
                .field("hello.protocol_version");
        }
        Ok(Self {
            instance: InstanceId::try_from(hello.instance.as_ref()).field("hello.instance")?,
            have: have(&hello)?,
            config_hash: config_hash(&hello.config_hash)?,
            accept_stale: hello.accept_stale,
            agent_version: text(&hello.agent_version),
            stream: hello.stream,
            public_key: entry::public_key(&hello.public_key).field("hello.public_key")?,
            secret_generation: Generation(hello.secret_generation),
        })
    }
}

fn have(hello: &sync::Hello) -> Result<Option<Have>, InvalidField> {
    if hello.revision == 0 {
        return Ok(None);
    }
    Ok(Some(Have {
        epoch: Epoch::try_from(hello.epoch.as_ref()).field("hello.epoch")?,
        revision: Revision(hello.revision),
        digest: Digest::try_from(hello.digest.as_ref()).field("hello.digest")?,
    }))
}

fn config_hash(bytes: &Bytes) -> Result<Option<[u8; 32]>, InvalidField> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let hash = bytes.as_ref().try_into();
    hash.map(Some)
        .map_err(|_| format!("32 bytes or none, got {}", bytes.len()))
        .field("hello.config_hash")
}

impl TryFrom<sync::Ack> for Ack {
    type Error = InvalidField;

    fn try_from(ack: sync::Ack) -> Result<Self, InvalidField> {
        let revision = Revision(ack.revision);
        let verified = Revision(ack.verified_revision);
        if verified > revision {
            return Err(format!("{verified} is after the revision applied, {revision}"))
                .field("ack.verified_revision");
        }
        let rejected = ack.rejected.iter().take(MAX_REJECTED).map(|rejection| {
            let node = NodeId::try_from(rejection.node_id.as_ref());
            Ok((node.field("ack.rejected.node_id")?, text(&rejection.reason)))
        });
        Ok(Self {
            revision,
            digest: Digest::try_from(ack.digest.as_ref()).field("ack.digest")?,
            apply: Duration::from_micros(ack.apply_micros),
            rejected: rejected.collect::<Result<_, InvalidField>>()?,
            verified,
        })
    }
}

impl TryFrom<sync::Inspected> for Inspected {
    type Error = InvalidField;

    fn try_from(inspected: sync::Inspected) -> Result<Self, InvalidField> {
        let endpoint = Some(inspected.endpoint.as_ref()).filter(|bytes| !bytes.is_empty());
        let endpoint = endpoint.map(Endpoint::try_from).transpose().field("inspected.endpoint")?;
        let last_handshake = inspected.handshake_millis_ago.map(Duration::from_millis);
        Ok(Self { query: inspected.query, tunnel: Tunnel { endpoint, last_handshake } })
    }
}

fn observations(seen: &sync::Observations) -> Result<Vec<Observation>, InvalidField> {
    if seen.observations.len() > MAX_OBSERVATIONS {
        return Err(format!("at most {MAX_OBSERVATIONS}, got {}", seen.observations.len()))
            .field("observations");
    }
    seen.observations.iter().map(Observation::try_from).collect()
}

impl TryFrom<&sync::Observation> for Observation {
    type Error = InvalidField;

    fn try_from(seen: &sync::Observation) -> Result<Self, InvalidField> {
        let endpoint = Endpoint::try_from(seen.endpoint.as_ref());
        Ok(Self {
            peer: NodeId::try_from(seen.node_id.as_ref()).field("observations.node_id")?,
            endpoint: endpoint.field("observations.endpoint")?,
            handshake: Duration::from_millis(seen.handshake_millis_ago),
        })
    }
}

impl TryFrom<sync::Report> for Report {
    type Error = InvalidField;

    fn try_from(report: sync::Report) -> Result<Self, InvalidField> {
        if report.endpoints.len() > MAX_ENDPOINTS {
            return Err(format!("at most {MAX_ENDPOINTS}, got {}", report.endpoints.len()))
                .field("report.endpoints");
        }
        let data_plane = match report.data_plane() {
            sync::DataPlane::Kernel => Some(DataPlane::Kernel),
            sync::DataPlane::Userspace => Some(DataPlane::Userspace),
            sync::DataPlane::Unspecified => None,
        };
        let listen_port = u16::try_from(report.listen_port)
            .ok()
            .filter(|port| *port != 0)
            .ok_or_else(|| format!("{} is no UDP port", report.listen_port))
            .field("report.listen_port")?;
        let endpoints = entry::endpoints(&report.endpoints).field("report.endpoints")?;
        let secret_generation = Generation(report.secret_generation);
        Ok(Self { endpoints, listen_port, data_plane, secret_generation })
    }
}

/// A text that goes to an operator's terminal: short, and without control characters.
fn text(untrusted: &str) -> String {
    untrusted.chars().filter(|c| !c.is_control()).take(MAX_TEXT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> sync::Hello {
        sync::Hello {
            protocol_version: 1,
            instance: Bytes::from_static(&[1; 16]),
            epoch: Bytes::from_static(&[2; 16]),
            revision: 7,
            digest: Bytes::from_static(&[3; 16]),
            ..Default::default()
        }
    }

    #[test]
    fn hello_says_what_the_agent_has() {
        let read = Hello::try_from(hello()).unwrap();
        assert_eq!(read.have.map(|have| have.revision), Some(Revision(7)));
        let nothing = sync::Hello { revision: 0, epoch: Bytes::new(), ..hello() };
        assert_eq!(Hello::try_from(nothing).unwrap().have, None);
    }

    #[test]
    fn malformed_fields_are_named() {
        let short = Bytes::from_static(&[1; 3]);
        let hello_error = |hello: sync::Hello| Hello::try_from(hello).unwrap_err().field;
        assert_eq!(
            hello_error(sync::Hello { instance: short.clone(), ..hello() }),
            "hello.instance"
        );
        assert_eq!(hello_error(sync::Hello { epoch: short.clone(), ..hello() }), "hello.epoch");
        assert_eq!(hello_error(sync::Hello { digest: short.clone(), ..hello() }), "hello.digest");
        assert_eq!(
            hello_error(sync::Hello { config_hash: short.clone(), ..hello() }),
            "hello.config_hash"
        );
        assert_eq!(
            hello_error(sync::Hello { protocol_version: 0, ..hello() }),
            "hello.protocol_version"
        );

        let ack = sync::Ack { revision: 5, digest: vec![0; 16].into(), ..Default::default() };
        let ack_error = |ack: sync::Ack| Ack::try_from(ack).unwrap_err().field;
        assert_eq!(ack_error(sync::Ack { digest: short.clone(), ..ack.clone() }), "ack.digest");
        assert_eq!(
            ack_error(sync::Ack { verified_revision: 6, ..ack.clone() }),
            "ack.verified_revision"
        );
        let rejected = vec![sync::Rejection { node_id: short.clone(), reason: String::new() }];
        assert_eq!(ack_error(sync::Ack { rejected, ..ack }), "ack.rejected.node_id");

        let report = sync::Report { listen_port: 5, ..Default::default() };
        let report_error = |report: sync::Report| Report::try_from(report).unwrap_err().field;
        for listen_port in [0, 65_536] {
            assert_eq!(
                report_error(sync::Report { listen_port, ..report.clone() }),
                "report.listen_port"
            );
        }
        for endpoints in [vec![short], vec![Bytes::from_static(&[10, 0, 0, 1, 0, 9]); 9]] {
            assert_eq!(
                report_error(sync::Report { endpoints, ..report.clone() }),
                "report.endpoints"
            );
        }
        let seen = sync::Observation {
            node_id: Bytes::from_static(&[1; 16]),
            endpoint: Bytes::from_static(&[192, 0, 2, 1, 0, 9]),
            handshake_millis_ago: 1500,
        };
        let seen_error = |seen: Vec<sync::Observation>| {
            let said = sync::Observations { observations: seen };
            let request = sync::SyncRequest { message: Some(Message::Observations(said)) };
            Request::try_from(request).unwrap_err().field
        };
        let no_node = sync::Observation { node_id: Bytes::new(), ..seen.clone() };
        let no_endpoint = sync::Observation { endpoint: Bytes::new(), ..seen.clone() };
        for (field, said) in [
            ("observations", vec![seen; MAX_OBSERVATIONS + 1]),
            ("observations.node_id", vec![no_node]),
            ("observations.endpoint", vec![no_endpoint]),
        ] {
            assert_eq!(seen_error(said), field);
        }
        let empty = sync::SyncRequest { message: None };
        assert_eq!(Request::try_from(empty).unwrap_err().field, "message");
    }

    #[test]
    fn texts_for_operators_hold_no_escapes() {
        assert_eq!(text("1.0\u{1b}[2J\n"), "1.0[2J");
        assert_eq!(text(&"x".repeat(1000)).len(), MAX_TEXT);
    }
}
