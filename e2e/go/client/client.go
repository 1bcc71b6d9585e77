package client

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// A request's subject ends in a literal asterisk: the document alone says what is asked for.
	keygenSubject  = "mpc.keygen_request.*"
	signingSubject = "mpc.signing_request.*"
	// Resharing is asked for over core NATS.
	reshareSubject = "mpc:reshare"

	clientIDHeader = "ClientID"
	resultStream   = "mpc"
	setUpTime      = 10 * time.Second
)

// Release says whose habits a client has.
type Release int

const (
	// Current clients scope their results by a client id.
	Current Release = iota
	// Older clients (the tag v0.3.5 and before) know no client id, and configure the streams for results without one.
	Older
)

// Options of a Client.
type Options struct {
	Conn     *nats.Conn
	Signer   Signer
	ClientID string
	Release  Release
}

// Client asks a cluster for wallets and signatures.
type Client struct {
	options  Options
	stream   jetstream.JetStream
	keygen   jetstream.Consumer
	signing  jetstream.Consumer
	reshare  jetstream.Consumer
	stoppers []func()
}

// New creates or updates the streams and this client's three consumers, as every client does when it starts.
func New(options Options) (*Client, error) {
	if options.Release == Older && options.ClientID != "" {
		return nil, fmt.Errorf("older clients have no client id")
	}
	js, err := jetstream.New(options.Conn)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), setUpTime)
	defer cancel()
	for _, config := range streams(options.Release) {
		if _, err := js.CreateOrUpdateStream(ctx, config); err != nil {
			return nil, fmt.Errorf("stream %s: %w", config.Name, err)
		}
	}
	c := &Client{options: options, stream: js}
	for _, lane := range []struct {
		consumer *jetstream.Consumer
		kind     string
		last     string
	}{{&c.keygen, "mpc_keygen_result", "*"}, {&c.signing, "mpc_signing_result", "complete"}, {&c.reshare, "mpc_reshare_result", "*"}} {
		name, subject := lane.kind, "mpc."+lane.kind
		if options.ClientID != "" {
			name, subject = name+"."+options.ClientID, subject+"."+options.ClientID
		}
		if options.Release == Older {
			lane.last = "*"
		}
		if *lane.consumer, err = js.CreateOrUpdateConsumer(ctx, resultStream, jetstream.ConsumerConfig{
			Durable:        durableName(name),
			FilterSubjects: []string{subject + "." + lane.last},
			AckPolicy:      jetstream.AckExplicitPolicy,
			MaxDeliver:     3,
		}); err != nil {
			return nil, fmt.Errorf("consumer %s: %w", name, err)
		}
	}
	return c, nil
}

func streams(release Release) []jetstream.StreamConfig {
	age, requestBytes, resultBytes, results := 7*24*time.Hour, int64(100_000_000), int64(100_000_000), ">"
	if release == Older {
		age, requestBytes, resultBytes, results = 3*time.Minute, -1, 10_485_760, "*"
	}
	requests := func(name, subject string) jetstream.StreamConfig {
		return jetstream.StreamConfig{
			Name: name, Description: "Stream for " + name, Subjects: []string{subject}, MaxAge: age, MaxBytes: requestBytes,
			Storage: jetstream.FileStorage, Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardOld,
		}
	}
	return []jetstream.StreamConfig{
		requests("mpc-keygen", keygenSubject),
		requests("mpc-signing", signingSubject),
		{
			Name: resultStream, Description: "Stream for " + resultStream, MaxBytes: resultBytes,
			Subjects: []string{"mpc.mpc_keygen_result." + results, "mpc.mpc_signing_result." + results, "mpc.mpc_reshare_result." + results},
			Storage:  jetstream.FileStorage, Retention: jetstream.WorkQueuePolicy, Discard: jetstream.DiscardOld,
		},
	}
}

// durableName turns what may not be in a consumer's name into underscores.
func durableName(name string) string {
	return strings.NewReplacer(".", "_", ":", "_", " ", "_", "-", "_", ">", "all", "*", "any").Replace(name)
}

// CreateWallet signs and sends a request for a wallet.
func (c *Client) CreateWallet(walletID string, authorizers ...AuthorizerSignature) error {
	message := &KeygenMessage{WalletID: walletID, AuthorizerSignatures: authorizers}
	raw, err := message.Raw()
	if err != nil {
		return err
	}
	if message.Signature, err = c.options.Signer.Sign(raw); err != nil {
		return err
	}
	return c.publish(keygenSubject, message)
}

// SignTransaction signs and sends a request for a signature.
func (c *Client) SignTransaction(message *SignMessage) error {
	raw, err := message.Raw()
	if err != nil {
		return err
	}
	if message.Signature, err = c.options.Signer.Sign(raw); err != nil {
		return err
	}
	return c.publish(signingSubject, message)
}

// Reshare signs and sends a request for another committee, to whoever listens at this moment.
func (c *Client) Reshare(message *ReshareMessage) error {
	raw, err := message.Raw()
	if err != nil {
		return err
	}
	if message.Signature, err = c.options.Signer.Sign(raw); err != nil {
		return err
	}
	body, err := json.Marshal(message)
	if err != nil {
		return err
	}
	return c.options.Conn.PublishMsg(&nats.Msg{Subject: reshareSubject, Data: body, Header: c.header()})
}

// SendRaw puts a document into a request queue as it is.
func (c *Client) SendRaw(subject string, body []byte) error {
	ctx, cancel := context.WithTimeout(context.Background(), setUpTime)
	defer cancel()
	_, err := c.stream.PublishMsg(ctx, &nats.Msg{Subject: subject, Data: body, Header: c.header()})
	return err
}

func (c *Client) publish(subject string, message any) error {
	body, err := json.Marshal(message)
	if err != nil {
		return err
	}
	return c.SendRaw(subject, body)
}

func (c *Client) header() nats.Header {
	if c.options.ClientID == "" {
		return nil
	}
	return nats.Header{clientIDHeader: []string{c.options.ClientID}}
}

// OnWalletCreationResult calls handle with every answer to a request for a wallet.
func (c *Client) OnWalletCreationResult(handle func(KeygenResult)) error {
	return listen(c, c.keygen, handle)
}

// OnSignResult calls handle with every answer to a request for a signature.
func (c *Client) OnSignResult(handle func(SigningResult)) error { return listen(c, c.signing, handle) }

// OnReshareResult calls handle with every answer to a request for another committee.
func (c *Client) OnReshareResult(handle func(ReshareResult)) error {
	return listen(c, c.reshare, handle)
}

func listen[T any](c *Client, consumer jetstream.Consumer, handle func(T)) error {
	consuming, err := consumer.Consume(func(message jetstream.Msg) {
		var result T
		if err := json.Unmarshal(message.Data(), &result); err != nil {
			_ = message.Nak()
			return
		}
		handle(result)
		_ = message.Ack()
	})
	if err != nil {
		return err
	}
	c.stoppers = append(c.stoppers, consuming.Stop)
	return nil
}

// Stop ends all listeners. The consumers stay, so that answers wait for the next client with this id.
func (c *Client) Stop() {
	for _, stop := range c.stoppers {
		stop()
	}
	c.stoppers = nil
}
