//! How the kernel shares a machine out among its threads, for a process whose work comes in crowds.

use rustix::process::{getpriority_process, setpriority_process};
use thread_priority::{
    NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy,
    set_thread_priority_and_policy, thread_native_id,
};

/// Lets this thread, and those that it starts from now on, finish what others have begun before they
/// take a core (`SCHED_BATCH`, sched(7)). With the usual policy each arrival at a busy machine takes
/// the core from whoever was about to bring the next one, and everybody works in crumbs: 100,000
/// joins on two cores took half as long again, and eight times the log entries. An idle core is taken
/// at once either way.
pub fn batch() {
    if let Err(why) = set_batch() {
        tracing::debug!(why, "the scheduling policy stays as it is");
    }
}

/// Lets others that want a core go before this thread, though not without end: a thread with the usual
/// niceness gets three times as much (setpriority(2), which is of one thread on Linux). A pusher that
/// tells everyone something is in no hurry; whoever arrives meanwhile, and what the log has to say, is.
pub fn after_others() {
    let lowered = getpriority_process(None)
        .and_then(|niceness| setpriority_process(None, niceness + AFTER_OTHERS_NICENESS));
    if let Err(error) = lowered {
        tracing::debug!(%error, "the niceness stays as it is");
    }
}

/// With 5, joins were acknowledged in half the time while 100,000 were told something, the last of whom
/// was told no later.
const AFTER_OTHERS_NICENESS: i32 = 5;

/// Niceness 0, by the library's scale from 0 to 99.
const USUAL_PRIORITY: u8 = 48;

fn set_batch() -> Result<(), String> {
    let niceness = getpriority_process(None);
    let policy = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Batch);
    let priority = ThreadPriority::Crossplatform(USUAL_PRIORITY.try_into()?);
    let set = set_thread_priority_and_policy(thread_native_id(), priority, policy);
    // The niceness is set with the policy, and is to stay what it was.
    if let Ok(niceness) = niceness
        && let Err(error) = setpriority_process(None, niceness)
    {
        tracing::debug!(%error, niceness, "the niceness is another than before");
    }
    set.map_err(|error| format!("{error:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_are_started_later_have_the_policy_too() {
        let niceness = || getpriority_process(None).unwrap();
        let before = niceness();
        std::thread::spawn(move || {
            set_batch().unwrap();
            let policy = std::thread::spawn(thread_priority::thread_schedule_policy);
            let batch = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Batch);
            assert_eq!(policy.join().unwrap().ok(), Some(batch));
            assert_eq!(niceness(), before);
            after_others();
            assert_eq!(niceness(), (before + AFTER_OTHERS_NICENESS).min(19));
        })
        .join()
        .unwrap();
    }
}
