//! The `Jobs` service: an agent subscribes, gets orders, reports.

use super::{peer, status};
use crate::Coordinator;
use crate::auth::{self, Action, MAX_NODE};
use crate::error::Error;
use crate::schedule::{AGENT_GRACE, Connection, RETURN_GRACE};
use crate::session::PROTOCOL;
use holdfast_proto::v1::{
    AgentMessage, Hello, NodePlan, Order, agent_message, jobs_server::Jobs, order,
};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

pub(super) struct JobsService(pub(super) Arc<Coordinator>);

#[tonic::async_trait]
impl Jobs for JobsService {
    type SubscribeStream = ReceiverStream<Result<Order, Status>>;

    async fn subscribe(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let peer = peer(&request);
        let mut messages = request.into_inner();
        let first = messages.message().await?.and_then(|message| message.body);
        let Some(agent_message::Body::Hello(hello)) = first else {
            return Err(status(Error::invalid("the first message must be Hello")));
        };
        check(&hello).map_err(status)?;
        auth::authorize(&peer, Action::Serve(&hello.node)).map_err(status)?;
        tracing::info!(node = %hello.node, version = %hello.version, "agent connected");
        let (connection, mut sent) = self.0.hub().connect(hello);
        // A plan that is there already is news to this agent.
        sent.plan.mark_changed();
        let (sender, receiver) = mpsc::channel(1);
        let coordinator = self.0.clone();
        tokio::spawn(async move {
            expire_later(&coordinator, &connection, connection.event(), RETURN_GRACE);
            let stopping = coordinator.stopping();
            loop {
                tokio::select! {
                    order = sent.orders.recv() => {
                        // No more orders: a later connection of the node has replaced this one.
                        let Some(order) = order else { break };
                        if sender.send(Ok(order)).await.is_err() {
                            break;
                        }
                    }
                    changed = sent.plan.changed() => {
                        if changed.is_err() {
                            break;
                        }
                        let plan = sent.plan.borrow_and_update().clone();
                        if let Some(plan) = plan
                            && sender.send(Ok(planned(plan))).await.is_err()
                        {
                            break;
                        }
                    }
                    message = messages.message() => match message {
                        Ok(Some(message)) => take(&coordinator, &connection, message),
                        Ok(None) | Err(_) => break,
                    },
                    _ = stopping.requested() => break,
                }
            }
            let left = coordinator.hub().disconnect(&connection);
            tracing::info!(node = %connection.node(), "agent disconnected");
            expire_later(&coordinator, &connection, left, AGENT_GRACE);
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

fn check(hello: &Hello) -> Result<(), Error> {
    if hello.protocol != PROTOCOL {
        return Err(Error::ProtocolUnsupported {
            found: hello.protocol,
            supported: PROTOCOL,
        });
    }
    if hello.node.len() > MAX_NODE {
        return Err(Error::invalid("node name above 253 bytes"));
    }
    Ok(())
}

fn planned(plan: NodePlan) -> Order {
    Order {
        job: Default::default(),
        body: Some(order::Body::Plan(plan)),
    }
}

fn take(coordinator: &Coordinator, connection: &Connection, message: AgentMessage) {
    match message.body {
        Some(agent_message::Body::Report(report)) => {
            let now = coordinator.clock().now_ns();
            coordinator.hub().report(connection, report, now);
        }
        Some(agent_message::Body::Volumes(list)) => {
            coordinator.hub().set_volumes(connection, list.volumes);
        }
        Some(agent_message::Body::States(list)) => {
            let now = coordinator.clock().elapsed();
            coordinator.hub().set_states(connection, list.states, now);
        }
        Some(agent_message::Body::Condition(condition)) => {
            let now = coordinator.clock().now_ns();
            coordinator.hub().set_condition(connection, condition, now);
        }
        Some(agent_message::Body::Hello(_)) | None => {}
    }
}

/// Jobs that nobody reports within the grace have lost their agent.
fn expire_later(
    coordinator: &Arc<Coordinator>,
    connection: &Connection,
    event: u64,
    grace: Duration,
) {
    let (coordinator, node) = (coordinator.clone(), connection.node().to_owned());
    tokio::spawn(async move {
        coordinator.clock().sleep(grace).await;
        coordinator
            .hub()
            .expire(&node, event, coordinator.clock().now_ns());
    });
}
