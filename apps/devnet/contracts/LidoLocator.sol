// SPDX-License-Identifier: LicenseRef-Staking
pragma solidity 0.8.37;

/// Where the protocol's contracts are.
contract LidoLocator {
    address public immutable lido;
    address public immutable withdrawalQueue;

    constructor(address lido_, address withdrawalQueue_) {
        lido = lido_;
        withdrawalQueue = withdrawalQueue_;
    }
}
