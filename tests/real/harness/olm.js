// libolm by its JavaScript package, which the Node scanner and older web clients use. Reads one JSON object from stdin
// and writes one to stdout.
const olm = require("@matrix-org/olm");

async function main() {
    await olm.init();
    const { command, ...parameters } = JSON.parse(require("fs").readFileSync(0, "utf8"));
    const commands = {
        // Generates a key; returns its pickle, as stored by the Node scanner, and its public key.
        pickle({ pickle_key }) {
            const decryption = new olm.PkDecryption();
            const public_key = decryption.generate_key();
            return { public_key, pickle: decryption.pickle(pickle_key) };
        },
        // Returns the public key of a 32-byte secret.
        public_key({ secret }) {
            const decryption = new olm.PkDecryption();
            return { public_key: decryption.init_with_private_key(Buffer.from(secret, "base64")) };
        },
        // Encrypts the body of a request.
        seal({ public_key, content }) {
            const encryption = new olm.PkEncryption();
            encryption.set_recipient_key(public_key);
            return encryption.encrypt(content);
        },
    };
    process.stdout.write(JSON.stringify(commands[command](parameters)));
}

main();
