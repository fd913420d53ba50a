//! A real SQS API on this machine (moto), spoken to by the SDK; queues as the template has them.

use std::process::Command;
use std::time::Duration;

use aws_credential_types::Credentials;
use aws_sdk_sqs::config::{BehaviorVersion, Region};
use aws_sdk_sqs::error::DisplayErrorContext;
use aws_sdk_sqs::types::{DeleteMessageBatchRequestEntry, MessageSystemAttributeName, QueueAttributeName};
use aws_sdk_sqs::{Client, types::Message};

use crate::process::{self, Folder, Server};
use crate::{Error, Result, tools};

pub(crate) const REGION: &str = "eu-central-1";
const ACCESS_KEY: (&str, &str) = ("local", "local-secret");

/// A running emulator, stopped on drop.
pub struct Emulator {
    _server: Server,
    _folder: Folder,
    endpoint: String,
}

impl Emulator {
    /// Starts it on a free port; installs it where it is missing.
    ///
    /// # Errors
    /// When it can neither be found nor installed, or does not start.
    pub fn start() -> Result<Self> {
        let program = tools::moto_server()?;
        let (port, folder) = (process::free_port()?, process::folder("pc-sqs-", None)?);
        let mut moto = Command::new(program);
        moto.args(["-H", "127.0.0.1", "-p", &port.to_string()]).current_dir(&folder.0);
        let mut server = Server::spawn(moto, folder.0.join("log"))?;
        server.wait_for_port(port)?;
        Ok(Self { _server: server, _folder: folder, endpoint: format!("http://127.0.0.1:{port}") })
    }

    /// Where it listens.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }
}

/// What the SDK in a function, or in this process, needs in its environment to find the emulator.
pub fn environment(endpoint: &str) -> Vec<(String, String)> {
    [
        ("AWS_ENDPOINT_URL_SQS", endpoint),
        ("AWS_REGION", REGION),
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY.0),
        ("AWS_SECRET_ACCESS_KEY", ACCESS_KEY.1),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

/// A queue with its dead-letter queue.
#[derive(Debug, Clone)]
pub struct Queue {
    client: Client,
    /// What functions send to.
    pub url: String,
    /// Where messages go that were received too often.
    pub dead_letters: String,
}

impl Queue {
    /// Makes both, as the template does.
    ///
    /// # Errors
    /// When the emulator at `endpoint` does not answer.
    pub async fn create(
        endpoint: &str,
        name: &str,
        visibility: Duration,
        max_receive_count: u32,
    ) -> Result<Self> {
        let config = aws_sdk_sqs::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(REGION))
            .endpoint_url(endpoint)
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .credentials_provider(Credentials::new(ACCESS_KEY.0, ACCESS_KEY.1, None, None, "local"))
            .build();
        let client = Client::from_conf(config);
        let dead_letters = client.create_queue().queue_name(format!("{name}-dead")).send().await;
        let dead_letters = dead_letters.map_err(failed)?.queue_url.ok_or("no queue")?;
        let arn = format!("arn:aws:sqs:{REGION}:123456789012:{name}-dead");
        let redrive = format!(r#"{{"deadLetterTargetArn":"{arn}","maxReceiveCount":{max_receive_count}}}"#);
        let queue = client
            .create_queue()
            .queue_name(name)
            .attributes(QueueAttributeName::VisibilityTimeout, visibility.as_secs().to_string())
            .attributes(QueueAttributeName::RedrivePolicy, redrive);
        let url = queue.send().await.map_err(failed)?.queue_url.ok_or("no queue")?;
        Ok(Self { client, url, dead_letters })
    }

    /// Sends a message of any body, as anybody might.
    ///
    /// # Errors
    /// When the emulator refuses it or does not answer.
    pub async fn send(&self, body: &str) -> Result<()> {
        self.client.send_message().queue_url(&self.url).message_body(body).send().await.map_err(failed)?;
        Ok(())
    }

    /// Messages that wait, are being worked on or are delayed; and those among the dead letters.
    ///
    /// # Errors
    /// When the emulator does not answer.
    pub async fn depths(&self) -> Result<(u64, u64)> {
        Ok((self.depth(&self.url).await?, self.depth(&self.dead_letters).await?))
    }

    async fn depth(&self, url: &str) -> Result<u64> {
        let all = self.client.get_queue_attributes().queue_url(url).attribute_names(QueueAttributeName::All);
        let all = all.send().await.map_err(failed)?;
        let counts = [
            QueueAttributeName::ApproximateNumberOfMessages,
            QueueAttributeName::ApproximateNumberOfMessagesNotVisible,
            QueueAttributeName::ApproximateNumberOfMessagesDelayed,
        ];
        let attribute = |name| all.attributes()?.get(&name)?.parse::<u64>().ok();
        Ok(counts.into_iter().filter_map(attribute).sum())
    }

    /// Up to `batch` messages, waiting a second for the first.
    pub(crate) async fn receive(&self, batch: i32) -> Result<Vec<Message>> {
        let request = self.client.receive_message().queue_url(&self.url);
        let request = request.max_number_of_messages(batch).wait_time_seconds(1);
        let request = request.message_system_attribute_names(MessageSystemAttributeName::All);
        Ok(request.send().await.map_err(failed)?.messages.unwrap_or_default())
    }

    pub(crate) async fn delete(&self, receipts: Vec<String>) -> Result<()> {
        let entries = receipts.into_iter().enumerate().map(|(number, receipt)| {
            DeleteMessageBatchRequestEntry::builder().id(number.to_string()).receipt_handle(receipt).build()
        });
        let entries: Vec<_> = entries.collect::<std::result::Result<_, _>>()?;
        if !entries.is_empty() {
            let request = self.client.delete_message_batch().queue_url(&self.url);
            request.set_entries(Some(entries)).send().await.map_err(failed)?;
        }
        Ok(())
    }
}

fn failed(error: impl std::error::Error) -> Error {
    format!("SQS: {}", DisplayErrorContext(error)).into()
}
