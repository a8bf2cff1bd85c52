//! The service itself: every method finds its caller, and passes the request on.

use std::time::SystemTime;

use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use wattle_proto::admin::{self, admin_service_server::AdminService};
use wattle_runtime::clock;

use super::{
    apply, authority,
    backup::{self, Backups},
    explain, keys,
    mutation::mutate,
    networks, nodes, operators, policies, replicas, secrets,
    session::Agents,
    status, tokens, wait,
    watch::{Responses, Watches},
};
use crate::{access::Principal, nodes::Nodes, replica::Replica, replicas::Replicas, store::Store};

/// What operators may ask for. It trusts that `access` stands before it.
pub struct Admin {
    agents: Agents,
    watches: Watches,
    backups: Backups,
}

impl Admin {
    /// The service of one replica. Its streams end when `drain` is cancelled.
    pub fn new(replicas: Replicas, nodes: Nodes, drain: CancellationToken) -> Self {
        let (replica, sessions) = (replicas.own().clone(), replicas.sessions().clone());
        let watches = Watches::new(replica.store.clone(), drain.clone());
        let backups = Backups::new(replica.store.clone(), drain);
        let agents = Agents { replica, nodes, sessions, replicas, applying: Default::default() };
        Self { agents, watches, backups }
    }

    fn replica(&self) -> &Replica {
        &self.agents.replica
    }

    fn store(&self) -> &dyn Store {
        &*self.agents.replica.store
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl AdminService for Admin {
    async fn get_status(
        &self,
        _: Request<admin::GetStatusRequest>,
    ) -> Answer<admin::GetStatusResponse> {
        status::get(&self.agents).await.map(Response::new)
    }

    async fn list_replicas(
        &self,
        _: Request<admin::ListReplicasRequest>,
    ) -> Answer<admin::ListReplicasResponse> {
        Ok(Response::new(replicas::list(&self.agents)))
    }

    async fn create_network(
        &self,
        request: Request<admin::CreateNetworkRequest>,
    ) -> Answer<admin::CreateNetworkResponse> {
        let (principal, request, now) = called(&request)?;
        let plan = || networks::plan_create(self.store(), request, now);
        mutate(self.store(), principal, request, plan).await.map(Response::new)
    }

    async fn get_network(
        &self,
        request: Request<admin::GetNetworkRequest>,
    ) -> Answer<admin::GetNetworkResponse> {
        let mut answer = networks::get(self.store(), request.get_ref()).await?;
        if let Some(network) = &mut answer.network {
            secrets::describe(&self.agents, network).await?;
        }
        Ok(Response::new(answer))
    }

    async fn list_networks(
        &self,
        request: Request<admin::ListNetworksRequest>,
    ) -> Answer<admin::ListNetworksResponse> {
        networks::list(self.store(), request.get_ref()).await.map(Response::new)
    }

    async fn update_network(
        &self,
        request: Request<admin::UpdateNetworkRequest>,
    ) -> Answer<admin::UpdateNetworkResponse> {
        let (principal, request, now) = called(&request)?;
        let plan = || networks::plan_update(self.store(), request, now);
        mutate(self.store(), principal, request, plan).await.map(Response::new)
    }

    async fn delete_network(
        &self,
        request: Request<admin::DeleteNetworkRequest>,
    ) -> Answer<admin::DeleteNetworkResponse> {
        let (principal, request, now) = called(&request)?;
        let plan = || networks::plan_delete(self.store(), request, now);
        mutate(self.store(), principal, request, plan).await.map(Response::new)
    }

    async fn rotate_network_secret(
        &self,
        request: Request<admin::RotateNetworkSecretRequest>,
    ) -> Answer<admin::RotateNetworkSecretResponse> {
        let (principal, request, now) = called(&request)?;
        let plan = || secrets::plan_rotate(&self.agents, request, now);
        mutate(self.store(), principal, request, plan).await.map(Response::new)
    }

    async fn get_node(
        &self,
        request: Request<admin::GetNodeRequest>,
    ) -> Answer<admin::GetNodeResponse> {
        nodes::get(&self.agents, request.get_ref()).await.map(Response::new)
    }

    async fn list_nodes(
        &self,
        request: Request<admin::ListNodesRequest>,
    ) -> Answer<admin::ListNodesResponse> {
        nodes::list(&self.agents, request.get_ref()).await.map(Response::new)
    }

    async fn label_node(
        &self,
        request: Request<admin::LabelNodeRequest>,
    ) -> Answer<admin::LabelNodeResponse> {
        let (principal, request, _) = called(&request)?;
        let plan = || nodes::plan_label(&self.agents, request);
        mutate(self.store(), principal, request, plan).await.map(Response::new)
    }

    async fn delete_node(
        &self,
        request: Request<admin::DeleteNodeRequest>,
    ) -> Answer<admin::DeleteNodeResponse> {
        let (principal, request, now) = called(&request)?;
        let plan = || nodes::plan_delete(&self.agents, request, now);
        mutate(self.store(), principal, request, plan).await.map(Response::new)
    }

    async fn rotate_node_key(
        &self,
        request: Request<admin::RotateNodeKeyRequest>,
    ) -> Answer<admin::RotateNodeKeyResponse> {
        let (principal, request, now) = called(&request)?;
        let plan = || keys::plan_rotate(&self.agents, request, now);
        mutate(self.store(), principal, request, plan).await.map(Response::new)
    }

    async fn get_policy(
        &self,
        request: Request<admin::GetPolicyRequest>,
    ) -> Answer<admin::GetPolicyResponse> {
        policies::get(self.store(), request.get_ref()).await.map(Response::new)
    }

    async fn list_policies(
        &self,
        request: Request<admin::ListPoliciesRequest>,
    ) -> Answer<admin::ListPoliciesResponse> {
        policies::list(self.store(), request.get_ref()).await.map(Response::new)
    }

    async fn apply(&self, request: Request<admin::ApplyRequest>) -> Answer<admin::ApplyResponse> {
        let (principal, request, now) = called(&request)?;
        apply::apply(&self.agents, principal, request, now).await.map(Response::new)
    }

    async fn explain(
        &self,
        request: Request<admin::ExplainRequest>,
    ) -> Answer<admin::ExplainResponse> {
        explain::explain(&self.agents, request.get_ref()).await.map(Response::new)
    }

    async fn create_join_token(
        &self,
        request: Request<admin::CreateJoinTokenRequest>,
    ) -> Answer<admin::CreateJoinTokenResponse> {
        let (principal, request, now) = called(&request)?;
        let plan = || tokens::plan_create(self.replica(), principal, request, now);
        mutate(self.store(), principal, request, plan).await.map(Response::new)
    }

    async fn list_join_tokens(
        &self,
        request: Request<admin::ListJoinTokensRequest>,
    ) -> Answer<admin::ListJoinTokensResponse> {
        tokens::list(self.store(), request.get_ref()).await.map(Response::new)
    }

    async fn revoke_join_token(
        &self,
        request: Request<admin::RevokeJoinTokenRequest>,
    ) -> Answer<admin::RevokeJoinTokenResponse> {
        let (principal, request, _) = called(&request)?;
        let plan = || tokens::plan_revoke(self.store(), request);
        mutate(self.store(), principal, request, plan).await.map(Response::new)
    }

    async fn create_operator(
        &self,
        request: Request<admin::CreateOperatorRequest>,
    ) -> Answer<admin::CreateOperatorResponse> {
        let (principal, request, now) = called(&request)?;
        let plan = || operators::plan_create(self.replica(), request, now);
        mutate(self.store(), principal, request, plan).await.map(Response::new)
    }

    async fn list_operators(
        &self,
        request: Request<admin::ListOperatorsRequest>,
    ) -> Answer<admin::ListOperatorsResponse> {
        operators::list(self.store(), request.get_ref()).await.map(Response::new)
    }

    async fn revoke_operator(
        &self,
        request: Request<admin::RevokeOperatorRequest>,
    ) -> Answer<admin::RevokeOperatorResponse> {
        let (principal, request, now) = called(&request)?;
        let plan = || operators::plan_revoke(self.store(), request, now);
        mutate(self.store(), principal, request, plan).await.map(Response::new)
    }

    async fn renew_operator(
        &self,
        request: Request<admin::RenewOperatorRequest>,
    ) -> Answer<admin::RenewOperatorResponse> {
        let (principal, request, now) = called(&request)?;
        operators::renew(self.replica(), principal, request, now).await.map(Response::new)
    }

    async fn get_ca(&self, _: Request<admin::GetCaRequest>) -> Answer<admin::GetCaResponse> {
        authority::get(&self.agents, clock::now()).await.map(Response::new)
    }

    async fn trust_root(
        &self,
        request: Request<admin::TrustRootRequest>,
    ) -> Answer<admin::TrustRootResponse> {
        let (principal, request, now) = called(&request)?;
        let plan = || authority::plan_trust(self.store(), request, now);
        mutate(self.store(), principal, request, plan).await.map(Response::new)
    }

    async fn retire_roots(
        &self,
        request: Request<admin::RetireRootsRequest>,
    ) -> Answer<admin::RetireRootsResponse> {
        let (principal, request, now) = called(&request)?;
        let plan = || authority::plan_retire(&self.agents, request, now);
        mutate(self.store(), principal, request, plan).await.map(Response::new)
    }

    type BackupStream = backup::Responses;

    async fn backup(&self, _: Request<admin::BackupRequest>) -> Answer<backup::Responses> {
        self.backups.open().await.map(Response::new)
    }

    type WatchStream = Responses;

    async fn watch(&self, request: Request<admin::WatchRequest>) -> Answer<Responses> {
        let (principal, request, _) = called(&request)?;
        self.watches.open(principal, request).await.map(Response::new)
    }

    async fn wait_applied(
        &self,
        request: Request<admin::WaitAppliedRequest>,
    ) -> Answer<admin::WaitAppliedResponse> {
        wait::wait_applied(&self.agents, request.get_ref()).await.map(Response::new)
    }
}

/// Who calls, what for, and when: the one place here that looks at the clock.
fn called<T>(request: &Request<T>) -> Result<(&Principal, &T, SystemTime), Status> {
    Ok((Principal::of(request.extensions())?, request.get_ref(), clock::now()))
}
