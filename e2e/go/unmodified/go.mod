module mpcium/e2e/unmodified

go 1.25.0

// The release and everything that it needs are added where the tests run: see `e2e/src/go.rs`.

require github.com/nats-io/nats.go v1.48.0

// The Go system's own go.mod replaces these two, and a replacement holds in the main module only.
replace (
	github.com/agl/ed25519 => github.com/binance-chain/edwards25519 v0.0.0-20200305024217-f36fc4b53d43
	github.com/bnb-chain/tss-lib/v2 => github.com/fystack/tss-lib/v2 v2.0.3
)
