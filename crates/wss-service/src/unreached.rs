//! Why other processes of a cluster have not got a message.

/// Why a message has not reached the other processes of a cluster, or may not have. Sessions of this process are not
/// concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unreached {
    /// There is no connection with the engine at this moment.
    #[error("the engine of the cluster is away")]
    Away,
    /// 4,096 messages, or 16 MiB of them, wait for the engine already.
    #[error("too much waits for the engine of the cluster")]
    Full,
    /// The message is longer than the cluster takes, or the name of the user or the group is longer than 1,024 bytes.
    #[error("the message, or the name of its receivers, is too long for the cluster")]
    TooLong,
    /// The engine has said no. The log says why.
    #[error("the engine of the cluster has refused it")]
    Refused,
    /// The connection with the engine has ended before its answer: other processes may have got the message.
    #[error("the engine of the cluster has not answered; other processes may have got the message")]
    Unanswered,
}
