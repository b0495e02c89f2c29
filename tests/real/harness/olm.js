// libolm, by its own JavaScript package, which the Node scanner and older web clients use. Reads one JSON
// object from standard input, and writes one.
const olm = require("@matrix-org/olm");

async function main() {
    await olm.init();
    const { command, ...given } = JSON.parse(require("fs").readFileSync(0, "utf8"));
    const answers = {
        // A new key: as the Node scanner keeps it, and its public part.
        pickle({ pickle_key }) {
            const decryption = new olm.PkDecryption();
            const public_key = decryption.generate_key();
            return { public_key, pickle: decryption.pickle(pickle_key) };
        },
        // The public part of a secret of 32 bytes.
        public_key({ secret }) {
            const decryption = new olm.PkDecryption();
            return { public_key: decryption.init_with_private_key(Buffer.from(secret, "base64")) };
        },
        // A request's body, sealed.
        seal({ public_key, content }) {
            const encryption = new olm.PkEncryption();
            encryption.set_recipient_key(public_key);
            return encryption.encrypt(content);
        },
    };
    process.stdout.write(JSON.stringify(answers[command](given)));
}

main();
