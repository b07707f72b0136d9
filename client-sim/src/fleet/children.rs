//! The machines as processes: started with their share, asked over HTTP, and never left behind.

use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use futures_util::future::join_all;
use hongbao_proto::token::TokenError;
use hongbao_telemetry::program::service;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::{Instant, timeout};

use crate::fleet::http::{CallError, Caller};
use crate::fleet::plan::Plan;
use crate::fleet::targets;
use crate::results::{Ready, Results, StatementsOrder, Status, StopAt};

/// For a machine to measure its clock and bind its control surface.
const READY_DEADLINE: Duration = Duration::from_secs(30);

/// For all machines to say how they are. One that is busy is asked again a second later.
const STATUS_DEADLINE: Duration = Duration::from_secs(5);

/// From a polite to an impolite end.
const END_DEADLINE: Duration = Duration::from_secs(5);

/// What is wrong with a machine. One line each.
#[derive(Debug, thiserror::Error)]
pub enum MachineTrouble {
    #[error("{name} ended too early: {status}")]
    Ended { name: String, status: ExitStatus },
    #[error("{name}: {source}")]
    Call { name: String, source: CallError },
    #[error("{0}")]
    Other(String),
}

#[derive(Debug)]
struct Machine {
    name: String,
    child: Child,
    url: String,
    /// Kept open: a machine that finds its output closed would fail on its next line.
    stdout: BufReader<ChildStdout>,
}

/// All machines that were started.
#[derive(Debug)]
pub struct Children {
    machines: Vec<Machine>,
    caller: Caller,
    targets_file: Option<PathBuf>,
}

impl Children {
    /// No machines yet; `now`: Unix seconds.
    pub fn new(plan: &Plan, now: u64) -> Result<Self, TokenError> {
        let caller = Caller::new(&plan.secret, now)?;
        Ok(Self { machines: Vec::new(), caller, targets_file: plan.targets_file.clone() })
    }

    /// Starts all machines of the plan and waits until each has told where its control surface is.
    pub async fn start(&mut self, plan: &Plan, ntp: &str) -> Result<(), MachineTrouble> {
        for index in 0..plan.machines {
            let name = Plan::machine_name(index);
            let mut child = command(plan, index, ntp)
                .spawn()
                .map_err(|error| MachineTrouble::Other(format!("{name} cannot be started: {error}")))?;
            let stdout = child.stdout.take().expect("its output is piped");
            self.machines.push(Machine { name, child, url: String::new(), stdout: BufReader::new(stdout) });
        }
        for machine in &mut self.machines {
            machine.wait_ready().await?;
        }
        self.write_targets(&self.machines).map_err(|error| MachineTrouble::Other(error.to_string()))
    }

    /// Where they can be scraped, for who wants to know.
    fn write_targets(&self, machines: &[Machine]) -> io::Result<()> {
        let Some(file) = &self.targets_file else { return Ok(()) };
        let targets = machines.iter().map(|machine| (machine.name.as_str(), machine.url.trim_start_matches("http://")));
        targets::write(file, targets)
            .map_err(|error| io::Error::new(error.kind(), format!("--targets-file {}: {error}", file.display())))
    }

    /// A machine that is about to end as it should is not missing.
    fn withdraw_targets(&self) {
        if let Err(error) = self.write_targets(&[]) {
            tracing::warn!(event = "targets_stale", %error, "machines that end are still named as targets");
        }
    }

    /// What every machine says of itself, in order. `None`: some machine is there, and did not say
    /// it in time.
    pub async fn statuses(&mut self) -> Result<Option<Vec<Status>>, MachineTrouble> {
        let statuses = match timeout(STATUS_DEADLINE, self.get_all("/v1/status")).await {
            Ok(statuses) => self.sort_out(statuses),
            Err(_) => return self.check_running().map(|()| None),
        };
        match statuses {
            Ok(statuses) => Ok(Some(statuses)),
            Err(MachineTrouble::Call { name, source }) => {
                tracing::warn!(event = "machine_silent", machine = name, error = %source, "no status");
                Ok(None)
            }
            Err(trouble) => Err(trouble),
        }
    }

    /// What every machine measured, in order, and a line for each that could not tell.
    pub async fn results(&mut self) -> (Vec<Results>, Vec<String>) {
        let (mut results, mut troubles) = (Vec::new(), Vec::new());
        for (answer, machine) in self.get_all::<Results>("/v1/results").await.into_iter().zip(&self.machines) {
            match answer {
                Ok(one) => results.push(one),
                Err(error) => troubles.push(format!("{}: {error}", machine.name)),
            }
        }
        (results, troubles)
    }

    /// Gives every machine an order.
    pub async fn post(&mut self, path: &str, body: &impl Serialize) -> Result<(), MachineTrouble> {
        let post = async |machine: &Machine| self.caller.post(&format!("{}{path}", machine.url), body).await;
        let answers = join_all(self.machines.iter().map(post)).await;
        self.sort_out(answers).map(drop)
    }

    /// Has so many users read their statements, as many on each machine.
    pub async fn statements(&mut self, users: u32) -> Result<(), MachineTrouble> {
        let machines = u32::try_from(self.machines.len()).unwrap_or(u32::MAX);
        self.post("/v1/statements", &StatementsOrder { users: users.div_ceil(machines.max(1)) }).await
    }

    /// Tells every machine to stop, and waits until all have ended. Returns those that did not end
    /// well.
    pub async fn stop(&mut self, patience: Duration) -> Result<Vec<String>, MachineTrouble> {
        self.withdraw_targets();
        self.post("/v1/stop", &StopAt::default()).await?;
        let deadline = Instant::now() + patience;
        let mut ill = Vec::new();
        for machine in &mut self.machines {
            match tokio::time::timeout_at(deadline, machine.child.wait()).await {
                Ok(Ok(status)) if status.success() => {}
                Ok(Ok(status)) => ill.push(format!("{} ended with {status}", machine.name)),
                Ok(Err(error)) => ill.push(format!("{}: {error}", machine.name)),
                Err(_) => ill.push(format!("{} did not end when told to", machine.name)),
            }
        }
        Ok(ill)
    }

    /// Ends whatever still runs, politely first, and reaps it.
    pub async fn end(&mut self) {
        self.withdraw_targets();
        for machine in &self.machines {
            if let Some(pid) = machine.child.id().and_then(|pid| i32::try_from(pid).ok()) {
                // Not reaped yet, so the id is still its own.
                kill(Pid::from_raw(pid), Signal::SIGTERM).ok();
            }
        }
        let deadline = Instant::now() + END_DEADLINE;
        for machine in &mut self.machines {
            if tokio::time::timeout_at(deadline, machine.child.wait()).await.is_err()
                && let Err(error) = machine.child.kill().await
            {
                tracing::error!(event = "machine_unkillable", machine = machine.name, %error, "cannot be killed");
            }
        }
    }

    /// What each machine answers, in order.
    async fn get_all<T: DeserializeOwned>(&self, path: &str) -> Vec<Result<T, CallError>> {
        let get = async |machine: &Machine| self.caller.get(&format!("{}{path}", machine.url)).await;
        join_all(self.machines.iter().map(get)).await
    }

    fn check_running(&mut self) -> Result<(), MachineTrouble> {
        for machine in &mut self.machines {
            if let Ok(Some(status)) = machine.child.try_wait() {
                return Err(MachineTrouble::Ended { name: machine.name.clone(), status });
            }
        }
        Ok(())
    }

    /// A machine that does not answer because it has ended is said to have ended.
    fn sort_out<T>(&mut self, answers: Vec<Result<T, CallError>>) -> Result<Vec<T>, MachineTrouble> {
        let mut good = Vec::with_capacity(answers.len());
        for (machine, answer) in self.machines.iter_mut().zip(answers) {
            match answer {
                Ok(answer) => good.push(answer),
                Err(source) => {
                    let name = machine.name.clone();
                    return Err(match machine.child.try_wait() {
                        Ok(Some(status)) => MachineTrouble::Ended { name, status },
                        _ => MachineTrouble::Call { name, source },
                    });
                }
            }
        }
        Ok(good)
    }
}

impl Machine {
    async fn wait_ready(&mut self) -> Result<(), MachineTrouble> {
        let mut line = String::new();
        let read = timeout(READY_DEADLINE, self.stdout.read_line(&mut line)).await;
        let reason = match read {
            Ok(Ok(0)) => match timeout(END_DEADLINE, self.child.wait()).await {
                Ok(Ok(status)) => return Err(MachineTrouble::Ended { name: self.name.clone(), status }),
                _ => "its output is closed".to_owned(),
            },
            Ok(Ok(_)) => match serde_json::from_str::<Ready>(&line) {
                Ok(ready) => {
                    self.url = format!("http://{}", ready.http);
                    return Ok(());
                }
                Err(error) => error.to_string(),
            },
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("nothing for {} s", READY_DEADLINE.as_secs()),
        };
        Err(MachineTrouble::Other(format!("{} did not get ready: {reason}", self.name)))
    }
}

/// The secret goes by its file, or through the environment that a child inherits; never by an
/// argument.
fn command(plan: &Plan, index: u32, ntp: &str) -> Command {
    let share = plan.share(index);
    let rate = (plan.connect_rate / plan.machines).max(1);
    let mut command = Command::new(std::env::current_exe().unwrap_or_else(|_| "hongbao-sim".into()));
    command
        .arg("machine")
        .arg("--with-parent")
        .args(["--name", &Plan::machine_name(index), "--ntp", ntp])
        .args(["--users", &format!("{}..{}", share.first, share.last), "--total", &plan.users.to_string()])
        .args(["--connect-rate", &rate.to_string()])
        .args(plan.common.to_command_line())
        .arg("--journal")
        .arg(plan.journal(index))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    // A machine of a fleet is no service of its own.
    for variable in service::VARIABLES {
        command.env_remove(variable);
    }
    if plan.react {
        command.arg("--react");
    }
    if plan.pin_machines {
        command.args(["--core", &index.to_string()]);
    }
    if let Some(secret_file) = &plan.common.secret_file {
        command.arg("--secret-file").arg(secret_file);
    }
    command
}
