//! Requests to a group's coordinator: who leads the group's partition of the offsets topic.

use std::time::Duration;

use millstream_protocol::{
    ErrorCode, messages::Request, names::OFFSETS_TOPIC, partitioner::partition_for_key,
};

use crate::{client::Shared, connection::Purpose, error::RequestError, routing::RETRY_PAUSE};

/// Asks once. While the offsets topic is not there any broker will do: it makes it.
pub(crate) async fn ask_coordinator<R: Request + Sync>(
    shared: &Shared,
    group: &str,
    request: &R,
    patience: Duration,
) -> Result<R::Response, RequestError> {
    let topic = match shared.metadata.topic(OFFSETS_TOPIC).await {
        Ok(topic) => topic,
        Err(RequestError::UnknownTopic(_)) => return shared.metadata.ask_any(request).await,
        Err(error) => return Err(error),
    };
    let count = u32::try_from(topic.leaders.len())
        .unwrap_or(u32::MAX)
        .max(1);
    let partition = partition_for_key(group.as_bytes(), count);
    let leader = topic.leaders.get(partition.0 as usize).copied().flatten();
    let leader = leader.ok_or_else(|| RequestError::Broker {
        code: ErrorCode::NotCoordinator,
        message: format!("group {group} has no coordinator now").into(),
    })?;
    let connection = shared.metadata.connection(leader.node, Purpose::Control)?;
    let reply = connection.request(request, Vec::new(), patience).await;
    if let Err(error) = &reply
        && (error.is_retriable()
            && error
                .code()
                .is_none_or(|it| it == ErrorCode::NotCoordinator))
    {
        // It may be elsewhere now. If metadata can't be had, the next attempt says why.
        let _ = shared.metadata.refresh(OFFSETS_TOPIC, topic.heard_at).await;
    }
    Ok(reply?.body)
}

/// Asks until there is an answer, or an error that will not pass; gives up after the client's request
/// timeout. `error_of` finds a retriable error in an answer, and `make` makes each request anew.
pub(crate) async fn ask_until_answered<R: Request + Sync>(
    shared: &Shared,
    group: &str,
    mut make: impl FnMut() -> R,
    error_of: impl Fn(&R::Response) -> Option<(ErrorCode, String)>,
) -> Result<R::Response, RequestError> {
    let give_up_at = shared.clock.now() + shared.request_timeout;
    loop {
        let request = make();
        let asked = ask_coordinator(shared, group, &request, shared.request_timeout).await;
        let trouble = match asked {
            Ok(response) => match error_of(&response) {
                Some((code, message)) => RequestError::Broker {
                    code,
                    message: message.into(),
                },
                None => return Ok(response),
            },
            Err(error) => error,
        };
        if !trouble.is_retriable() || shared.clock.now() >= give_up_at {
            return Err(trouble);
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}
