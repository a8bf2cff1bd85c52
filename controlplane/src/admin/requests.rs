//! Which requests change something, and what they are answered with.

use wattle_model::Revision;
use wattle_proto::admin::{
    ApplyRequest, ApplyResponse, CreateJoinTokenRequest, CreateJoinTokenResponse,
    CreateNetworkRequest, CreateNetworkResponse, CreateOperatorRequest, CreateOperatorResponse,
    DeleteNetworkRequest, DeleteNetworkResponse, DeleteNodeRequest, DeleteNodeResponse,
    LabelNodeRequest, LabelNodeResponse, Network, Node, RetireRootsRequest, RetireRootsResponse,
    RevokeJoinTokenRequest, RevokeJoinTokenResponse, RevokeOperatorRequest, RevokeOperatorResponse,
    RotateNetworkSecretRequest, RotateNetworkSecretResponse, RotateNodeKeyRequest,
    RotateNodeKeyResponse, TrustRootRequest, TrustRootResponse, UpdateNetworkRequest,
    UpdateNetworkResponse,
};

use super::mutation::{Answer, Mutation};

/// A request, its method's name, its answer, and the part of the answer that has a revision of its
/// own, if there is one.
macro_rules! mutations {
    ($($method:literal: $request:ident => $answer:ident $({ $thing:ident })?,)*) => {$(
        impl Mutation for $request {
            const METHOD: &'static str = $method;
            type Answer = $answer;

            fn request_id(&self) -> &[u8] {
                &self.request_id
            }
        }

        impl Answer for $answer {
            fn made_at(&mut self, revision: Revision) {
                self.revision = revision.0;
                $(self.$thing.iter_mut().for_each(|thing| thing.made_at(revision));)?
            }
        }
    )*};
}

mutations! {
    "CreateNetwork": CreateNetworkRequest => CreateNetworkResponse { network },
    "UpdateNetwork": UpdateNetworkRequest => UpdateNetworkResponse { network },
    "DeleteNetwork": DeleteNetworkRequest => DeleteNetworkResponse,
    "RotateNetworkSecret": RotateNetworkSecretRequest => RotateNetworkSecretResponse { network },
    "LabelNode": LabelNodeRequest => LabelNodeResponse { node },
    "DeleteNode": DeleteNodeRequest => DeleteNodeResponse,
    "RotateNodeKey": RotateNodeKeyRequest => RotateNodeKeyResponse { node },
    "RevokeJoinToken": RevokeJoinTokenRequest => RevokeJoinTokenResponse,
    "CreateOperator": CreateOperatorRequest => CreateOperatorResponse,
    "RevokeOperator": RevokeOperatorRequest => RevokeOperatorResponse,
    "TrustRoot": TrustRootRequest => TrustRootResponse,
    "RetireRoots": RetireRootsRequest => RetireRootsResponse,
}

impl Mutation for CreateJoinTokenRequest {
    const METHOD: &'static str = "CreateJoinToken";
    type Answer = CreateJoinTokenResponse;

    fn request_id(&self) -> &[u8] {
        &self.request_id
    }
}

impl Answer for CreateJoinTokenResponse {
    fn made_at(&mut self, revision: Revision) {
        self.revision = revision.0;
    }

    fn forget_secrets(&mut self) {
        self.token.clear();
    }
}

impl Mutation for ApplyRequest {
    const METHOD: &'static str = "Apply";
    type Answer = ApplyResponse;

    fn request_id(&self) -> &[u8] {
        &self.request_id
    }
}

impl Answer for ApplyResponse {
    fn made_at(&mut self, revision: Revision) {
        self.revision = revision.0;
        let after = self.applied.iter_mut().filter_map(|applied| applied.after.as_mut());
        // 0 stands for the one being made.
        let made = after.filter_map(|after| after.revision.as_mut().filter(|own| **own == 0));
        made.for_each(|own| *own = revision.0);
    }
}

/// A thing that knows the revision of its last change; 0 where that is the one being made.
trait Revised {
    fn made_at(&mut self, revision: Revision);
}

impl Revised for Network {
    fn made_at(&mut self, revision: Revision) {
        if self.revision == 0 {
            self.revision = revision.0;
        }
    }
}

impl Revised for Node {
    fn made_at(&mut self, revision: Revision) {
        if self.revision == 0 {
            self.revision = revision.0;
        }
    }
}
