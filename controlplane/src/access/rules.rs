//! The table: which method whom. What it doesn't name, nobody may call.

use super::{Principal, Role};

/// Who may call a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    /// Whoever reaches the port. The certificate, if there is one, isn't looked at.
    Anyone,
    /// Live nodes.
    Node,
    /// Other replicas that run.
    Replica,
    /// Operators of at least this role, and the local socket.
    Operator(Role),
}

impl Rule {
    /// Whether `principal` may.
    pub(super) fn allows(self, principal: &Principal) -> bool {
        match (self, principal) {
            (Self::Anyone, _)
            | (Self::Node, Principal::Node { .. })
            | (Self::Replica, Principal::Replica(_))
            | (Self::Operator(_), Principal::Local) => true,
            (Self::Operator(least), Principal::Operator { role, .. }) => *role >= least,
            _ => false,
        }
    }

    /// Whom it asks for.
    pub(super) const fn asks_for(self) -> &'static str {
        match self {
            Self::Anyone => "anyone",
            Self::Node => "a node",
            Self::Replica => "a replica",
            Self::Operator(Role::Viewer) => "an operator",
            Self::Operator(Role::Operator) => "an operator with the role operator or admin",
            Self::Operator(Role::Admin) => "an operator with the role admin",
        }
    }
}

/// The rule of a method's path, `/package.Service/Method`.
pub(super) fn rule(path: &str) -> Option<Rule> {
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    match service {
        "wattle.enroll.v1.EnrollmentService" => enrollment(method),
        "wattle.sync.v1.SyncService" => (method == "Sync").then_some(Rule::Node),
        "wattle.replica.v1.ReplicaService" => replica(method),
        "wattle.admin.v1.AdminService" => admin(method).map(Rule::Operator),
        "grpc.health.v1.Health" => matches!(method, "Check" | "Watch").then_some(Rule::Anyone),
        "grpc.reflection.v1.ServerReflection" | "grpc.reflection.v1alpha.ServerReflection" => {
            (method == "ServerReflectionInfo").then_some(Rule::Operator(Role::Viewer))
        }
        _ => None,
    }
}

fn enrollment(method: &str) -> Option<Rule> {
    match method {
        // Both prove their right by what they send: a token, or a live node's key.
        "Enroll" | "Recover" => Some(Rule::Anyone),
        "Renew" | "Leave" => Some(Rule::Node),
        _ => None,
    }
}

fn replica(method: &str) -> Option<Rule> {
    match method {
        "ListSessions" | "WatchApplied" | "Inspect" | "TellEntered" => Some(Rule::Replica),
        _ => None,
    }
}

fn admin(method: &str) -> Option<Role> {
    match method {
        "GetStatus" | "ListReplicas" | "GetNetwork" | "ListNetworks" | "GetNode" | "ListNodes"
        | "GetPolicy" | "ListPolicies" | "Explain" | "ListJoinTokens" | "ListOperators"
        | "Watch" | "WaitApplied" | "RenewOperator" | "GetCa" => Some(Role::Viewer),
        "CreateNetwork"
        | "UpdateNetwork"
        | "DeleteNetwork"
        | "LabelNode"
        | "DeleteNode"
        | "RotateNodeKey"
        | "RotateNetworkSecret"
        | "Apply"
        | "CreateJoinToken"
        | "RevokeJoinToken" => Some(Role::Operator),
        "CreateOperator" | "RevokeOperator" | "TrustRoot" | "RetireRoots" | "Backup" => {
            Some(Role::Admin)
        }
        _ => None,
    }
}
