//! `Debug` of the messages that carry a secret: everything else of them, and never the secret. The
//! generated one would show it in the first log line that prints a request.

use std::fmt;

use crate::{admin::CreateJoinTokenResponse, enroll::EnrollRequest, store, sync};

const HIDDEN: &str = "redacted";

impl fmt::Debug for EnrollRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            token_id,
            token_secret: _,
            csr,
            wireguard_public_key,
            name,
            endpoints,
            validate_only,
        } = self;
        f.debug_struct("EnrollRequest")
            .field("token_id", token_id)
            .field("token_secret", &HIDDEN)
            .field("csr", csr)
            .field("wireguard_public_key", wireguard_public_key)
            .field("name", name)
            .field("endpoints", endpoints)
            .field("validate_only", validate_only)
            .finish()
    }
}

impl fmt::Debug for CreateJoinTokenResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { join_token, token: _, revision } = self;
        f.debug_struct("CreateJoinTokenResponse")
            .field("join_token", join_token)
            .field("token", &HIDDEN)
            .field("revision", revision)
            .finish()
    }
}

impl fmt::Debug for sync::NetworkSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { generation, secret: _ } = self;
        f.debug_struct("NetworkSecret")
            .field("generation", generation)
            .field("secret", &HIDDEN)
            .finish()
    }
}

impl fmt::Debug for store::NetworkSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { generation, secret: _, made_at_millis } = self;
        f.debug_struct("NetworkSecret")
            .field("generation", generation)
            .field("secret", &HIDDEN)
            .field("made_at_millis", made_at_millis)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn secrets_are_hidden_and_the_rest_is_shown() {
        let request = EnrollRequest {
            name: "web".into(),
            token_secret: Bytes::from_static(b"very secret"),
            ..EnrollRequest::default()
        };
        let response = CreateJoinTokenResponse {
            token: "very secret".into(),
            revision: 7,
            ..CreateJoinTokenResponse::default()
        };
        let (request, response) = (format!("{request:?}"), format!("{response:?}"));
        assert!(request.contains("web") && response.contains('7'));
        assert!(!request.contains("very secret") && !response.contains("very secret"));
    }

    #[test]
    fn a_network_s_secret_is_hidden_wherever_it_is() {
        let secret = Bytes::from_static(b"very secret");
        let sent = sync::NetworkSecret { generation: 7, secret: secret.clone() };
        let config = sync::Config { secrets: vec![sent], ..Default::default() };
        let kept = store::NetworkSecret { generation: 7, secret, made_at_millis: 0 };
        let kept = store::NetworkSecrets { generation: 7, secrets: vec![kept] };
        for shown in [format!("{config:?}"), format!("{kept:?}")] {
            assert!(shown.contains("generation: 7") && !shown.contains("very"), "{shown}");
        }
    }
}
