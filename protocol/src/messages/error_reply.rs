//! The answer to a request that failed as a whole. Its layout is frozen: it answers requests in
//! versions and of APIs that this build does not know.

use crate::{error_code::ErrorCode, wire_struct};

wire_struct! {
    /// Body of a reply whose header has the `ERROR` flag.
    pub struct ErrorReply {
        /// What went wrong.
        pub error: ErrorCode,
        /// A sentence: what happened, to what, and what to do.
        pub message: String,
    }
}
