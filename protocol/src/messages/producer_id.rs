//! `InitProducerId`: an identity for an idempotent producer (KIP-98).

use crate::{
    ids::{ProducerEpoch, ProducerId},
    wire_struct,
};

wire_struct! {
    /// Asks for a fresh identity.
    pub struct InitProducerIdRequest {
        /// Reserved for transactions: none yet.
        pub transactional_id: Option<String>,
    }

    /// The identity; sequences start at 0 in each partition.
    pub struct InitProducerIdResponse {
        /// Never handed out before.
        pub producer_id: ProducerId,
        /// Its epoch.
        pub producer_epoch: ProducerEpoch,
    }
}
