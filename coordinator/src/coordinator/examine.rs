//! Whether the store can be read and written, tried when somebody asks: the claim is looked for, and written again as
//! it is, so that nothing new is in the store.

use super::Coordinator;
use crate::error::Error;
use holdfast_proto::v1::ExamineReply;

impl Coordinator {
    /// Tries whether the store can be read and written now.
    pub(crate) async fn examine(&self) -> ExamineReply {
        let began = self.clock.elapsed();
        let tried = async {
            let readers = || Error::invalid("this process only reads the repository");
            let owning = self.owning.as_ref().ok_or_else(readers)?;
            Ok::<_, Error>(owning.core.claim().await?.prove().await?)
        };
        let (problem, reason) = match tried.await {
            Ok(()) => (String::new(), String::new()),
            Err(error) => (said(&error), error.reason().as_str().to_owned()),
        };
        let took = self.clock.elapsed().saturating_sub(began);
        ExamineReply {
            problem,
            reason,
            took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            damaged: self.damage.len() as u64,
        }
    }
}

/// An error with its causes.
fn said(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |error| error.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
