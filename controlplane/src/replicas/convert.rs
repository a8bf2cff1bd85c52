//! The edge between replicas: messages become values and values messages.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use wattle_model::{Endpoint, InstanceId, NetworkName, NodeId, ReplicaId, Revision};
use wattle_proto::{Invalid as _, InvalidField, replica as proto};

use crate::stream::{Claim, DataPlane, Rejected, Report, SessionInfo, Standing, Tunnel};

/// A longer text than this tells an operator nothing more.
const MAX_TEXT: usize = 300;

pub(super) fn id_bytes(id: ReplicaId) -> Bytes {
    Bytes::copy_from_slice(id.as_bytes())
}

pub(super) fn node_bytes(node: NodeId) -> Bytes {
    Bytes::copy_from_slice(node.as_bytes())
}

pub(super) fn node(field: &'static str, bytes: &Bytes) -> Result<NodeId, InvalidField> {
    NodeId::try_from(bytes.as_ref()).field(field)
}

pub(super) fn claim_message(claim: &Claim) -> proto::Claim {
    proto::Claim {
        online: claim.online,
        instance: Bytes::copy_from_slice(claim.instance.as_bytes()),
        stream: claim.stream,
        millis_ago: millis(claim.at.elapsed()),
    }
}

pub(super) fn claim(message: Option<proto::Claim>) -> Result<Claim, InvalidField> {
    let message = message.field("claim")?;
    let now = Instant::now();
    Ok(Claim {
        online: message.online,
        instance: InstanceId::try_from(message.instance.as_ref()).field("claim.instance")?,
        stream: message.stream,
        at: now.checked_sub(Duration::from_millis(message.millis_ago)).unwrap_or(now),
    })
}

/// Nothing but the claim.
pub(super) fn claimed(node: NodeId, info: &SessionInfo) -> proto::Session {
    let claim = Some(claim_message(&info.claim()));
    proto::Session { node_id: node_bytes(node), claim, ..proto::Session::default() }
}

pub(super) fn session_message(node: NodeId, info: SessionInfo) -> proto::Session {
    let claim = Some(claim_message(&info.claim()));
    let rejected = info.rejected.into_iter().map(|rejected| proto::Rejected {
        node_id: node_bytes(rejected.node),
        reason: rejected.reason,
        after_revision: rejected.after.0,
        upto_revision: rejected.upto.0,
    });
    proto::Session {
        node_id: node_bytes(node),
        network: info.network.to_string(),
        claim,
        since: Some(info.since.into()),
        applied_revision: info.applied.0,
        verified_revision: info.verified.0,
        last_apply_micros: info.last_apply.map(micros),
        rejected: rejected.collect(),
        agent_version: info.agent_version,
        data_plane: match info.data_plane {
            Some(DataPlane::Kernel) => proto::DataPlane::Kernel.into(),
            Some(DataPlane::Userspace) => proto::DataPlane::Userspace.into(),
            None => proto::DataPlane::Unspecified.into(),
        },
        displaced: info.displaced,
    }
}

pub(super) fn session(message: proto::Session) -> Result<(NodeId, SessionInfo), InvalidField> {
    let node = node("node_id", &message.node_id)?;
    let data_plane = match message.data_plane() {
        proto::DataPlane::Kernel => Some(DataPlane::Kernel),
        proto::DataPlane::Userspace => Some(DataPlane::Userspace),
        proto::DataPlane::Unspecified => None,
    };
    let claim = claim(message.claim)?;
    let network: NetworkName = message.network.parse().field("network")?;
    let since = message.since.field("since")?;
    let rejected = message.rejected.into_iter().map(|rejected| {
        Ok(Rejected {
            node: self::node("rejected.node_id", &rejected.node_id)?,
            reason: text(rejected.reason),
            after: Revision(rejected.after_revision),
            upto: Revision(rejected.upto_revision),
        })
    });
    let info = SessionInfo {
        network,
        online: claim.online,
        since: since.try_into().field("since")?,
        applied: Revision(message.applied_revision),
        verified: Revision(message.verified_revision),
        last_apply: message.last_apply_micros.map(Duration::from_micros),
        rejected: rejected.collect::<Result<_, InvalidField>>()?,
        agent_version: text(message.agent_version),
        data_plane,
        displaced: message.displaced,
        instance: claim.instance,
        stream: claim.stream,
        moved: claim.at,
    };
    Ok((node, info))
}

pub(super) fn report_message(report: &Report) -> proto::Report {
    let mut message = proto::Report {
        node_id: node_bytes(report.node),
        claim: Some(claim_message(&report.claim)),
        ..proto::Report::default()
    };
    match &report.standing {
        Standing::Applied(after) => {
            message.set_standing(proto::Standing::Applied);
            message.after_micros = after.map(micros);
        }
        Standing::Rejected(applied, reason) => {
            message.set_standing(proto::Standing::Rejected);
            message.applied_revision = applied.0;
            message.reason.clone_from(reason);
        }
        Standing::Pending(applied) => {
            message.set_standing(proto::Standing::Pending);
            message.applied_revision = applied.0;
        }
        Standing::Offline(applied) => {
            message.set_standing(proto::Standing::Offline);
            message.applied_revision = applied.0;
        }
    }
    message
}

pub(super) fn report(message: proto::Report) -> Result<Report, InvalidField> {
    let applied = Revision(message.applied_revision);
    let standing = match message.standing() {
        proto::Standing::Applied => {
            Standing::Applied(message.after_micros.map(Duration::from_micros))
        }
        proto::Standing::Rejected => Standing::Rejected(applied, text(message.reason)),
        proto::Standing::Pending => Standing::Pending(applied),
        // A newer replica's word for what this one can't know: not to be waited for.
        proto::Standing::Offline | proto::Standing::Unspecified => Standing::Offline(applied),
    };
    let node = node("node_id", &message.node_id)?;
    Ok(Report { node, standing, claim: claim(message.claim)? })
}

pub(super) fn tunnel_message(tunnel: &Tunnel) -> proto::Tunnel {
    proto::Tunnel {
        endpoint: tunnel.endpoint.map_or_else(Bytes::new, |endpoint| endpoint.to_bytes().into()),
        handshake_millis_ago: tunnel.last_handshake.map(millis),
    }
}

pub(super) fn tunnel(message: &proto::Tunnel) -> Result<Tunnel, InvalidField> {
    let endpoint = match message.endpoint.is_empty() {
        true => None,
        false => Some(Endpoint::try_from(message.endpoint.as_ref()).field("tunnel.endpoint")?),
    };
    let last_handshake = message.handshake_millis_ago.map(Duration::from_millis);
    Ok(Tunnel { endpoint, last_handshake })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn text(text: String) -> String {
    match text.len() > MAX_TEXT {
        true => text.chars().take(MAX_TEXT).collect(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn info() -> SessionInfo {
        SessionInfo {
            network: "default".parse().unwrap(),
            online: true,
            since: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
            applied: Revision(7),
            verified: Revision(6),
            last_apply: Some(Duration::from_micros(15)),
            rejected: vec![Rejected {
                node: NodeId::new([2; 16]),
                reason: "no route".into(),
                after: Revision(5),
                upto: Revision(7),
            }],
            agent_version: "0.1.0".into(),
            data_plane: Some(DataPlane::Kernel),
            displaced: true,
            instance: InstanceId::new([3; 16]),
            stream: 4,
            moved: Instant::now(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_comes_over_whole() {
        let sent = info();
        tokio::time::advance(Duration::from_secs(3)).await;
        let (node, got) = session(session_message(NodeId::new([1; 16]), sent.clone())).unwrap();
        assert_eq!((node, format!("{got:?}")), (NodeId::new([1; 16]), format!("{sent:?}")));
        let message = claimed(node, &sent);
        assert_eq!(claim(message.claim).unwrap(), sent.claim());
    }

    #[tokio::test(start_paused = true)]
    async fn a_report_comes_over_whole() {
        for standing in [
            Standing::Applied(Some(Duration::from_micros(5))),
            Standing::Applied(None),
            Standing::Rejected(Revision(7), "no route".into()),
            Standing::Pending(Revision(3)),
            Standing::Offline(Revision(2)),
        ] {
            let sent = Report { node: NodeId::new([1; 16]), standing, claim: info().claim() };
            assert_eq!(report(report_message(&sent)).unwrap(), sent);
        }
    }

    #[test]
    fn what_cant_be_read_is_named() {
        let bad = proto::Session {
            network: "NOT".into(),
            ..session_message(NodeId::new([1; 16]), info())
        };
        assert!(session(bad).unwrap_err().to_string().starts_with("network: "));
        assert!(session(proto::Session::default()).unwrap_err().to_string().contains("node_id"));
        assert!(claim(None).is_err());
    }
}
