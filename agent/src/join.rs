//! Enrolment: from a join token to an identity on disk. The keys are kept before the request that
//! makes the node, so that repeating it after a crash at any point gives the same node; a machine
//! that is turned away before keeps nothing.

use std::{fs, sync::Arc};

use bytes::Bytes;
use ipnet::IpNet;
use tonic::{Code, Status, transport::Channel};
use wattle_certs::{InvalidCertificate, InvalidTrustDomain, KeyPair};
use wattle_model::{Endpoint, InvalidId, InvalidKey, JoinToken, NodeId, NodeName};
use wattle_proto::{
    Invalid as _, InvalidField,
    enroll::{EnrollRequest, EnrollResponse, enrollment_service_client::EnrollmentServiceClient},
};
use wattle_runtime::dial::{self, DialError};

use crate::{
    control_plane::{CONNECT, describe, request},
    kernel::{Host, KernelError, Overlap},
    report,
    settings::{self, Settings},
    state::{
        StateDir, StateError,
        identity::{Identity, Pending},
    },
    wireguard_key,
};

/// What this machine wishes for.
#[derive(Debug, Clone)]
pub(crate) struct Wishes {
    /// Its name; without one, the host's is asked for.
    pub(crate) name: Option<NodeName>,
    /// The interface it will have: what belongs to it overlaps with nothing.
    pub(crate) interface: String,
    /// Where its WireGuard will listen.
    pub(crate) listen_port: u16,
    /// Endpoints given by flag.
    pub(crate) declared: Vec<Endpoint>,
}

/// Why a machine can't join.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JoinError {
    /// The state directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// The control plane can't be reached, or isn't the one the token was made for.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// TLS can't be set up.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
    /// The control plane says no.
    #[error("{}", describe(.0))]
    Refused(Box<Status>),
    /// The control plane's answer makes no sense.
    #[error("the control plane's answer: {0}")]
    Answer(#[from] InvalidField),
    /// The certificate isn't the one that was asked for.
    #[error("the control plane gave a certificate for another key or node")]
    WrongCertificate,
    /// The network would take addresses that this machine uses for something else.
    #[error("this machine can't join: {0}")]
    Overlap(#[from] Overlap),
    /// The machine's addresses and routes can't be read.
    #[error(transparent)]
    Host(#[from] KernelError),
}

impl From<Status> for JoinError {
    fn from(status: Status) -> Self {
        Self::Refused(Box::new(status))
    }
}

/// Enrols this machine, and keeps its identity.
pub(crate) async fn join(
    state: &StateDir,
    token: &JoinToken,
    wishes: &Wishes,
) -> Result<Identity, JoinError> {
    let keys = keys(state, token)?;
    // Checks chain, pin and URI in the handshake: nothing secret is sent to anybody else.
    let tls = Arc::new(wattle_certs::pinned_client_config(token.pin)?);
    let dialed = dial::channel(&token.addresses, tls, CONNECT).await?;
    let mut client = EnrollmentServiceClient::new(dialed.channel);

    let host = Host::read(&wishes.interface).await?;
    let mut ask = enroll_request(token, &keys, wishes, &host)?;
    let network = validate(&mut client, &mut ask, wishes.name.is_none()).await?;
    host.check_overlap(&network)?;
    ask.validate_only = false;
    state.save_pending(&keys)?;
    let answer = client.enroll(request(ask)).await?.into_inner();
    let identity = identity(answer, keys)?;

    // What another node held means nothing to this one.
    state.clear_committed()?;
    state.save_identity(&identity)?;
    state.clear_pending()?;
    Ok(identity)
}

/// The keys to enrol with: those of an earlier attempt with the same token, or new ones.
fn keys(state: &StateDir, token: &JoinToken) -> Result<Pending, StateError> {
    if let Some(pending) = state.pending()?.filter(|pending| pending.token == token.id) {
        return Ok(pending);
    }
    Ok(Pending {
        token: token.id,
        tls_key: Arc::new(KeyPair::generate()),
        wireguard_key: wireguard_key::generate(),
    })
}

fn enroll_request(
    token: &JoinToken,
    keys: &Pending,
    wishes: &Wishes,
    host: &Host,
) -> Result<EnrollRequest, JoinError> {
    let public_key = wireguard_key::public(&keys.wireguard_key);
    let public_key = public_key.map_err(|error: InvalidKey| InvalidField {
        field: "wireguard_key",
        source: error.into(),
    })?;
    let endpoints = report::endpoints(&wishes.declared, host, wishes.listen_port);
    let name = wishes.name.clone().or_else(host_name);
    Ok(EnrollRequest {
        token_id: Bytes::copy_from_slice(token.id.as_bytes()),
        token_secret: Bytes::copy_from_slice(token.secret.expose_bytes()),
        csr: keys.tls_key.csr().into(),
        wireguard_public_key: Bytes::copy_from_slice(public_key.as_bytes()),
        name: name.map_or_else(String::new, |name| name.to_string()),
        endpoints: endpoints.iter().map(|endpoint| endpoint.to_bytes().into()).collect(),
        validate_only: true,
    })
}

/// Asks whether the enrolment would be accepted, and returns the network's ranges. A name that was
/// only guessed gives way to one that the control plane makes.
async fn validate(
    client: &mut EnrollmentServiceClient<Channel>,
    ask: &mut EnrollRequest,
    guessed: bool,
) -> Result<Vec<IpNet>, JoinError> {
    let answer = match client.enroll(request(ask.clone())).await {
        Err(status) if guessed && status.code() == Code::AlreadyExists && !ask.name.is_empty() => {
            ask.name.clear();
            client.enroll(request(ask.clone())).await?
        }
        answer => answer?,
    };
    let config = answer.into_inner().config.field("config")?;
    Ok(settings::addresses(&config)?.ranges())
}

fn identity(answer: EnrollResponse, keys: Pending) -> Result<Identity, JoinError> {
    let credential = answer.credential.field("credential")?;
    let node_id = NodeId::try_from(answer.node_id.as_ref());
    let node_id = node_id.map_err(|error: InvalidId| error).field("node_id")?;
    let certificate = rustls_pki_types::CertificateDer::from(credential.certificate.to_vec());
    let says = wattle_certs::peer_identity(&certificate);
    let says = says.map_err(|error: InvalidCertificate| error).field("credential.certificate")?;
    let right =
        matches!(&says.id.identity, wattle_certs::Identity::Node { node, .. } if *node == node_id);
    if !right || says.fingerprint != keys.tls_key.fingerprint() {
        return Err(JoinError::WrongCertificate);
    }
    let trust_domain = credential.trust_domain.parse();
    let config = answer.config.field("config")?;
    Ok(Identity {
        node_id,
        trust_domain: trust_domain
            .map_err(|error: InvalidTrustDomain| error)
            .field("credential.trust_domain")?,
        settings: Settings::try_from(&config)?,
        deleted: false,
        certificate,
        ca_certificates: settings::roots(&credential.ca_certificates)
            .field("credential.ca_certificates")?,
        tls_key: keys.tls_key,
        wireguard_key: keys.wireguard_key,
        next_wireguard_key: None,
        secrets: Default::default(),
    })
}

/// The host's name as a node's, where it can be one: its first label, lower-case.
fn host_name() -> Option<NodeName> {
    let text = fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let label = text.trim().split('.').next()?.to_ascii_lowercase();
    label.parse().ok().filter(|_| label != "localhost")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scripted::{Asked, Authority, Replica};

    struct Bench {
        folder: tempfile::TempDir,
        authority: Arc<crate::scripted::Authority>,
        replica: Replica,
    }

    impl Bench {
        async fn new() -> Self {
            let authority = Authority::new();
            let replica = Replica::start(&authority).await;
            Self { folder: tempfile::tempdir().unwrap(), authority, replica }
        }

        async fn join_with(
            &self,
            token: &JoinToken,
            name: Option<&str>,
        ) -> Result<Identity, JoinError> {
            let state = StateDir::open(self.folder.path()).unwrap();
            let wishes = Wishes {
                name: name.map(|name| name.parse().unwrap()),
                interface: "test0".into(),
                listen_port: 51820,
                declared: vec![],
            };
            join(&state, token, &wishes).await
        }

        async fn join(&self) -> Result<Identity, JoinError> {
            self.join_with(&self.token(), Some("wished")).await
        }

        fn token(&self) -> JoinToken {
            self.replica.token(self.authority.ca.pin())
        }

        /// The enrolment requests since the last call.
        fn requests(&self) -> Vec<EnrollRequest> {
            let asked = self.replica.enrollment.take_asked().into_iter();
            let requests = asked.map(|asked| match asked {
                Asked::Enroll(request) => *request,
                other => panic!("{other:?}"),
            });
            requests.collect()
        }
    }

    #[tokio::test]
    async fn it_asks_before_it_takes_a_use_and_keeps_what_it_gets() {
        let bench = Bench::new().await;
        let identity = bench.join().await.unwrap();
        let requests = bench.requests();
        let asked: Vec<_> = requests.iter().map(|r| (r.validate_only, r.name.as_str())).collect();
        assert_eq!(asked, [(true, "wished"), (false, "wished")]);

        let state = StateDir::open(bench.folder.path()).unwrap();
        let kept = state.identity().unwrap().unwrap();
        assert_eq!((kept.node_id, &kept.settings), (identity.node_id, &identity.settings));
        assert_eq!(kept.tls_key.fingerprint(), identity.tls_key.fingerprint());
        assert_eq!(kept.wireguard_key, identity.wireguard_key);
        assert!(state.pending().unwrap().is_none());
    }

    /// The answer is lost: whoever repeats the command asks for the same node.
    #[tokio::test]
    async fn repeated_after_a_crash_it_asks_with_the_same_keys() {
        let bench = Bench::new().await;
        bench.replica.enrollment.answer([None, Some(Status::unavailable("lost"))]);
        bench.join().await.unwrap_err();
        let identity = bench.join().await.unwrap();
        let keys: Vec<_> =
            bench.requests().iter().map(|r| r.wireguard_public_key.clone()).collect();
        let key = wireguard_key::public(&identity.wireguard_key).unwrap();
        assert_eq!(keys, vec![Bytes::copy_from_slice(key.as_bytes()); 4]);
    }

    #[tokio::test]
    async fn another_token_gets_other_keys() {
        let bench = Bench::new().await;
        bench.replica.enrollment.answer([None, Some(Status::unavailable("lost"))]);
        bench.join().await.unwrap_err();
        let other = JoinToken { id: wattle_model::TokenId::new([9; 8]), ..bench.token() };
        bench.join_with(&other, None).await.unwrap();
        let requests = bench.requests();
        assert_ne!(requests[1].wireguard_public_key, requests[2].wireguard_public_key);
    }

    #[tokio::test]
    async fn a_wrong_pin_ends_it_before_the_secret_is_sent() {
        let bench = Bench::new().await;
        let token = bench.replica.token(wattle_model::Fingerprint::new([9; 32]));
        let error = bench.join_with(&token, None).await.unwrap_err();
        assert!(matches!(&error, JoinError::Dial(dial) if dial.is_untrusted()), "{error}");
        assert!(error.to_string().contains("token"), "{error}");
        assert!(bench.requests().is_empty());
    }

    #[tokio::test]
    async fn a_machine_that_is_turned_away_keeps_nothing() {
        let bench = Bench::new().await;
        bench.replica.enrollment.answer([Some(Status::permission_denied("revoked"))]);
        let error = bench.join().await.unwrap_err();
        assert_eq!(error.to_string(), "revoked");
        let kept = fs::read_dir(bench.folder.path()).unwrap().map(|file| file.unwrap().file_name());
        assert_eq!(kept.collect::<Vec<_>>(), ["lock"]);
    }

    #[tokio::test]
    async fn a_certificate_for_another_node_is_refused() {
        let bench = Bench::new().await;
        bench.replica.enrollment.confuse();
        let error = bench.join().await.unwrap_err();
        assert!(matches!(error, JoinError::WrongCertificate), "{error}");
        assert!(StateDir::open(bench.folder.path()).unwrap().identity().unwrap().is_none());
    }

    #[tokio::test]
    async fn a_guessed_name_that_is_taken_gives_way_but_a_wished_one_does_not() {
        let bench = Bench::new().await;
        let taken = || Some(Status::already_exists("the name is taken"));
        bench.replica.enrollment.answer([taken()]);
        let error = bench.join().await.unwrap_err();
        assert_eq!(error.to_string(), "the name is taken");
        if host_name().is_some() {
            bench.replica.enrollment.answer([taken()]);
            let identity = bench.join_with(&bench.token(), None).await.unwrap();
            assert_eq!(identity.settings.name.as_str(), "made-up");
        }
    }

    #[tokio::test]
    async fn two_agents_never_share_a_state_directory() {
        let bench = Bench::new().await;
        let _first = StateDir::open(bench.folder.path()).unwrap();
        let error = StateDir::open(bench.folder.path()).unwrap_err();
        assert!(error.to_string().contains("another wattle-agent"), "{error}");
    }

    #[tokio::test]
    async fn no_key_and_no_secret_is_printed() {
        let bench = Bench::new().await;
        let identity = bench.join().await.unwrap();
        let shown = format!("{identity:?} {:?}", bench.token());
        let pem = identity.tls_key.to_pem();
        assert!(!shown.contains(pem.lines().nth(1).unwrap()), "{shown}");
        assert!(shown.contains("PrivateKey(redacted)") && shown.contains("TokenSecret(redacted)"));
    }
}
